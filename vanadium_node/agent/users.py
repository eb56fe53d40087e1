"""Which users of the machine may have an agent do what: the system names them on its socket, by user and groups."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from vanadium_node.security.authorization import AuthorizationRequest, Refusal

SIGNING: Final = frozenset({"Sign"})
BLESSING: Final = frozenset({"Bless", "BlessSelf", "MintDischarge"})
"""Methods that hand on authority. A `Sign` of anything but sessions and messages does so too, and is judged as `Bless`."""


@dataclass(frozen=True, slots=True)
class Users:
    """Users, each by its own number or by one of its groups'. Without any number it is everybody who can open the socket."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()

    @classmethod
    def of(cls, uids: Iterable[int], gids: Iterable[int]) -> Self:
        """Return the users with these numbers."""
        return cls(frozenset(uids), frozenset(gids))

    def include(self, uid: int | None, gids: Iterable[int]) -> bool:
        """Tell whether a user in these groups is among them."""
        return not (self.uids or self.gids) or uid in self.uids or not self.gids.isdisjoint(gids)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRules:
    """An authorizer for unix sockets. Whoever runs the agent may do everything: it can read the agent's memory as well."""

    owner: int
    use: Users = Users()
    sign: Users = Users()
    bless: Users = Users()

    def __call__(self, request: AuthorizationRequest) -> Refusal | None:
        """Return None, or why the user may not call the method."""
        uid, gids = request.peer_uid, request.peer_gids
        if uid == self.owner:
            return None
        if not self.use.include(uid, gids):
            return Refusal(f"user {uid} is not one that this agent serves (its settings allow-uid and allow-gid)")
        if request.method in SIGNING and not self.sign.include(uid, gids):
            return Refusal(f"user {uid} may not have this agent sign (its settings sign-uid and sign-gid)")
        if request.method in BLESSING and not self.bless.include(uid, gids):
            return Refusal(f"user {uid} may not have this agent bless (its settings bless-uid and bless-gid)")
        return None
