"""Which users may have an agent do what: by the numbers that the system gives of whoever is at the other end."""

import os
from contextlib import nullcontext
from typing import Any

import pytest
from agent_parties import default_of, new_root

from vanadium_node import cbor
from vanadium_node.agent import open_principal
from vanadium_node.agent.service import AgentService
from vanadium_node.agent.users import UserRules, Users
from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.rpc import connect, serve
from vanadium_node.security.authorization import AuthorizationRequest
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import SignatureType
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import Validation

SOMEBODY_ELSE = 4321
MYSELF = Users.of([os.geteuid()], [])
OTHERS = Users.of([SOMEBODY_ELSE], [])


def may(rules: UserRules, method: str, uid: int, *gids: int) -> bool:
    """Tell whether the rules let a user call a method."""
    request = AuthorizationRequest(
        local_names=(),
        peer=Validation((), ()),
        peer_public_key=None,
        local_public_key=None,
        method=method,
        peer_uid=uid,
        peer_gids=gids,
    )
    return rules(request) is None


def test_without_rules_everybody_may_everything() -> None:
    """Who can open the socket is then all that counts."""
    assert all(may(UserRules(owner=1), name, 2, 3) for name in ("State", "Sign", "Bless"))


@pytest.mark.parametrize(
    ("uid", "gids", "allowed"),
    [(7, (70,), True), (8, (80, 9), True), (8, (9,), True), (8, (80,), False), (9, (7,), False)],
)
def test_a_user_counts_by_its_number_or_a_group(uid: int, gids: tuple[int, ...], allowed: bool) -> None:
    """Numbers of users are no numbers of groups."""
    rules = UserRules(owner=1, use=Users.of([7], [9]))
    assert may(rules, "State", uid, *gids) is allowed
    assert may(rules, "State", 1), "whoever runs the agent may always, so that probes work"


def test_methods_have_rules_of_their_own() -> None:
    """Whoever may sign may not bless therefore, and the rule for all methods comes first."""
    rules = UserRules(owner=1, use=Users.of([2, 3], []), sign=Users.of([3, 4], []), bless=Users.of([], [30]))
    assert [may(rules, "Sign", uid) for uid in (1, 2, 3, 4)] == [True, False, True, False]
    for name in ("Bless", "BlessSelf", "MintDischarge"):
        assert [may(rules, name, 2, 20), may(rules, name, 2, 20, 30), may(rules, name, 4, 30)] == [False, True, False]


async def test_a_user_that_may_only_sign(agents: Any, replica: Principal) -> None:
    """It connects to servers as the principal, and gives authority to nobody: not by `Sign` either."""
    service = AgentService(replica, immutable=True, authorize=UserRules(owner=SOMEBODY_ELSE, sign=MYSELF, bless=OTHERS))
    async with serve(service, None, listen=[f"unix:{agents.path}"]):
        async with agents.acting() as principal:
            for kind in (SignatureType.SESSION, SignatureType.MESSAGE):
                assert await principal.sign(kind, b"payload")
            friend = await new_root("friend")
            with pytest.raises(CallError, match="bless-uid") as refused:
                await principal.bless(friend.public_key, default_of(replica), "friend", [Caveat.unconstrained()])
            assert refused.value.code is ErrorCode.NO_ACCESS
        async with agents.asking() as agent:
            for kind in (SignatureType.BLESSING, SignatureType.DISCHARGE, SignatureType.STORE):
                with pytest.raises(CallError, match="may not have this agent bless"):
                    await agent.call("Sign", str(kind), b"payload", b"")
            arguments = [
                friend.public_key.der,
                default_of(replica),
                "x",
                [cbor.encode(Caveat.unconstrained().to_value())],
            ]
            with pytest.raises(CallError, match="may not have this agent bless"):
                await agent.call("Bless", *arguments, returns=Blessings)


async def test_a_user_that_may_nothing(agents: Any, replica: Principal) -> None:
    """It learns neither names nor keys, and a program of such a user ends with the reason instead of waiting for ever."""
    service = AgentService(replica, immutable=True, authorize=UserRules(owner=SOMEBODY_ELSE, use=OTHERS))
    async with serve(service, None, listen=[f"unix:{agents.path}"], authorizer=service.authorizer):
        async with agents.asking() as agent:
            for name in ("PublicKey", "State", "ValidNames", "BlessingStoreDefault", "BlessingRootsDump"):
                with pytest.raises(CallError, match="allow-uid") as refused:
                    await agent.call(name)
                assert refused.value.code is ErrorCode.NO_ACCESS
        with pytest.raises(CallError, match="allow-uid"):
            async with open_principal(environ={"V23_AGENT_PATH": str(agents.path)}):
                pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment")
async def test_the_system_names_user_and_groups(agents: Any, replica: Principal) -> None:
    """As they were when the connection was made, further groups (a pod's fsGroup is one) included."""
    service = AgentService(replica, immutable=True, authorize=UserRules(owner=0, use=Users.of([], [SOMEBODY_ELSE])))
    async with serve(service, None, listen=[f"unix:{agents.path}"], unix_mode=0o666):
        agents.path.parent.chmod(0o755)
        before = os.getgroups()
        for groups, allowed in (([SOMEBODY_ELSE], True), ([SOMEBODY_ELSE + 1], False)):
            os.setgroups(groups)
            os.seteuid(1000)
            try:
                async with connect(f"unix:{agents.path}", None) as agent:
                    os.seteuid(0)
                    os.setgroups(before)
                    with nullcontext() if allowed else pytest.raises(CallError, match="allow-gid"):
                        assert await agent.call("PublicKey", returns=bytes) == replica.public_key.der
            finally:
                os.seteuid(0)
                os.setgroups(before)
