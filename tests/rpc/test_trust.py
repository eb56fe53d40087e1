"""Who is let in, who is talked to, and until when: names, reasons, patterns, caveats on open connections."""

import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from rpc_parties import Parties, connected, principal, served, wear

from vanadium_node.errors import CallError, ErrorCode, InputError, NotTrustedError, UnreachableError
from vanadium_node.rpc import connect, serve
from vanadium_node.security.access import Permissions
from vanadium_node.security.authorization import permissions_authorizer
from vanadium_node.security.blessing import Chain
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import LocalSigner, SignatureType
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import CallContext
from vanadium_node.storage.permission_files import PermissionsFile


async def bless_again(family: Parties, who: Principal, extension: str, *caveats: Caveat) -> None:
    """Give a principal other blessings of the family's root."""
    own = family.root.store.default
    assert own is not None
    await wear(who, await family.root.bless(who.public_key, own, extension, caveats))


async def test_a_client_without_a_recognized_name_is_refused(family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """The refusal names what was presented and why it was rejected, to the client and, with both names, in the log."""
    stranger = await principal("stranger")
    await stranger.add_roots_of(family.server.store.default or pytest.fail("no blessings"))
    with caplog.at_level(logging.INFO, "vanadium_node.rpc"):
        async with served(family) as server, connect(f"/{server.addresses[0]}", stranger, now=family.clock) as client:
            with pytest.raises(CallError) as caught:
                await client.call("Echo", "x")
    assert caught.value.code is ErrorCode.NO_ACCESS
    assert "stranger (its root" in str(caught.value)
    assert "is not recognized for this name" in str(caught.value)
    assert "refused Echo of root:server to stranger" in caplog.text
    assert family.service.calls == []


async def test_a_server_without_a_recognized_name_is_refused_before_it_sees_anything(family: Parties) -> None:
    """The client names what was presented and why; the server never learns who it was. With `insecure` it goes on."""
    stranger = await principal("stranger")
    async with served(family) as server:
        name = f"/{server.addresses[0]}"
        with pytest.raises(NotTrustedError) as caught:
            async with connect(name, stranger, now=family.clock):
                pass
        assert "root:server (its root" in str(caught.value)
        assert "not recognized" in str(caught.value)
        assert name in str(caught.value)
        async with connect(name, stranger, insecure=True, now=family.clock) as client:
            assert client.server.presented == ("root:server",)
            assert client.server.names == ()


async def test_both_ends_verify_the_same_chains_once(family: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second connection costs no verification of chains at either end, and new blessings one at the end that reads them."""
    verified: list[int] = []
    verify = Chain.verify

    def counted(encoded: Sequence[bytes]) -> Chain:
        verified.append(1)
        return verify(encoded)

    monkeypatch.setattr(Chain, "verify", counted)
    async with served(family) as server:
        name = f"/{server.addresses[0]}"
        for _ in range(3):
            async with connect(name, family.client, now=family.clock) as client:
                assert await client.call("Echo", "x") == "x"
        assert len(verified) == 2
        await bless_again(family, family.client, "server:again", Caveat.unconstrained())
        async with connect(name, family.client, now=family.clock) as client:
            assert await client.call("Echo", "x") == "x"
        assert len(verified) == 3


@pytest.mark.parametrize(
    ("pattern", "is_trusted"),
    [
        ("root:server", True),
        ("root", True),
        ("root:server:$", True),
        ("...", True),
        ("root:$", False),
        ("root:other", False),
    ],
)
async def test_the_pattern_of_a_name(family: Parties, pattern: str, is_trusted: bool) -> None:
    """The server needs a name that counts and matches the pattern of the name that was dialled."""
    async with served(family) as server:
        name = f"/({pattern})@{server.addresses[0]}"
        if is_trusted:
            async with connect(name, family.client, now=family.clock) as client:
                assert await client.call("Quick", "x") == "x"
            return
        with pytest.raises(NotTrustedError, match=f"a name that matches {pattern.replace('$', '.')} is wanted"):
            async with connect(name, family.client, now=family.clock):
                pass


async def test_blessings_are_chosen_for_the_server(family: Parties) -> None:
    """A client shows what its store has for the server's names, and all of that."""
    own = family.root.store.default
    assert own is not None
    special = await family.root.bless(family.client.public_key, own, "special", [Caveat.unconstrained()])
    await family.client.set_for_peer(None, Pattern.parse("..."))
    await family.client.set_for_peer(special, Pattern.parse("root:server"))
    await family.client.set_for_peer(family.client.store.default, Pattern.parse("root:elsewhere"))
    async with connected(family) as client:
        assert (await client.call("__identify"))[0] == ["root:special"]


async def test_an_expired_blessing_stops_working_on_an_open_connection(family: Parties) -> None:
    """Of the client's: the call is refused, with the reason. It worked up to and including the time."""
    await bless_again(family, family.client, "server:guest", Caveat.expiry(family.clock() + timedelta(minutes=1)))
    async with connected(family) as client:
        for _ in range(2):
            assert await client.call("Quick", "x") == "x"
        family.clock.move(timedelta(minutes=1))
        assert await client.call("Quick", "x") == "x"
        family.clock.move(timedelta(seconds=1))
        with pytest.raises(CallError, match=r"root:server:guest \(expired at") as caught:
            await client.call("Quick", "x")
        assert caught.value.code is ErrorCode.NO_ACCESS


async def test_an_expired_server_is_not_called_any_more(family: Parties) -> None:
    """Of the server's: the client does not even send the call."""
    await bless_again(family, family.server, "server", Caveat.expiry(family.clock() + timedelta(minutes=1)))
    async with connected(family) as client:
        await client.call("Echo", "x")
        family.clock.move(timedelta(minutes=2))
        with pytest.raises(NotTrustedError, match="expired at"):
            await client.call("Echo", "x")
    assert len(family.service.calls) == 1


async def test_a_blessing_that_is_not_valid_yet_becomes_valid(family: Parties) -> None:
    """What was refused a moment ago is allowed once the caveat holds: no refusal is remembered for too long."""
    await bless_again(family, family.client, "server:soon", Caveat.not_before(family.clock() + timedelta(minutes=1)))
    async with connected(family) as client:
        with pytest.raises(CallError, match="not valid before"):
            await client.call("Quick", "x")
        family.clock.move(timedelta(minutes=1))
        assert await client.call("Quick", "x") == "x"
        family.clock.move(-timedelta(seconds=1))
        with pytest.raises(CallError, match="not valid before"):
            await client.call("Quick", "x")


async def test_a_method_caveat_allows_its_methods_only(family: Parties) -> None:
    """One connection, one blessing, and each call judged by its own method."""
    await bless_again(family, family.client, "server:reader", Caveat.method("Quick"))
    async with connected(family) as client:
        for _ in range(2):
            assert await client.call("Quick", "x") == "x"
            with pytest.raises(CallError, match=r"restricted to methods \[Quick\]"):
                await client.call("Echo", "x")


async def test_tag_peer_and_address_caveats(family: Parties) -> None:
    """Caveats see the method's tag, the server's names and the client's address."""
    good = (Caveat.access_tag("Read"), Caveat.peer_blessings("root:server"), Caveat.peer_address("127.0.0.0/8"))
    await bless_again(family, family.client, "server:limited", *good)
    async with connected(family) as client:
        assert await client.call("Echo", "x") == "x"
        with pytest.raises(CallError, match="tagged"):
            await client.call("Take")
    for bad in (Caveat.peer_blessings("root:other"), Caveat.peer_address("10.0.0.0/8"), Caveat.const(False)):
        await bless_again(family, family.client, "server:limited", bad)
        async with connected(family) as client:
            with pytest.raises(CallError) as caught:
                await client.call("Echo", "x")
            assert caught.value.code is ErrorCode.NO_ACCESS


async def test_roots_that_change_while_serving(family: Parties) -> None:
    """A root that is recognized later counts for the next call, on the same connection."""
    stranger = await principal("root:server:visitor")
    await stranger.add_roots_of(family.server.store.default or pytest.fail("no blessings"))
    async with served(family) as server, connect(f"/{server.addresses[0]}", stranger, now=family.clock) as client:
        with pytest.raises(CallError):
            await client.call("Echo", "x")
        await family.server.add_root(stranger.public_key, Pattern.parse("root:server:visitor"))
        assert await client.call("Echo", "x") == "x"


async def test_an_applications_caveat_is_judged_at_every_call(family: Parties) -> None:
    """With a validator, each time; without one, never valid."""
    await bless_again(family, family.client, "server:app", Caveat.of(2000, "weather"))
    answers = ["", "it rains", ""]
    asked = []

    def weather(_context: CallContext, parameter: object) -> str:
        asked.append(parameter)
        return answers[len(asked) - 1]

    async with (
        serve(
            family.service, family.server, listen=["127.0.0.1:0"], validators={2000: weather}, now=family.clock
        ) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):
        assert await client.call("Quick", "x") == "x"
        with pytest.raises(CallError, match="it rains"):
            await client.call("Quick", "x")
        assert await client.call("Quick", "x") == "x"
    async with connected(family) as client:
        with pytest.raises(CallError, match="caveat 2000 is unknown here"):
            await client.call("Quick", "x")


async def test_an_applications_caveat_on_a_servers_name(family: Parties) -> None:
    """The client's validators judge it; a client that has none for it does not believe the name."""
    await bless_again(family, family.server, "server", Caveat.of(2001, "green"))

    def colour(_context: CallContext, parameter: object) -> str:
        return "" if parameter == wanted else f"it is {parameter}, not {wanted}"

    async with served(family) as server:
        name = f"/(root:server)@{server.addresses[0]}"
        for wanted, others in (("green", {2001: colour}), ("red", {2001: colour}), ("green", {2002: colour})):
            connecting = connect(name, family.client, now=family.clock, validators=others)
            if wanted == "green" and 2001 in others:
                async with connecting as client:
                    assert client.server.names == ("root:server",)
                    assert await client.call("Quick", "x") == "x"
                continue
            with pytest.raises(NotTrustedError, match=r"it is green, not red|caveat 2001 is unknown here"):
                async with connecting:
                    pass


async def test_permissions_from_a_file_that_changes(
    family: Parties, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each call is judged by the file as it is then, on open connections too; while it is wrong or gone, nobody is allowed."""
    path = tmp_path / "permissions.json"
    good, other = '{"Read": {"In": ["root:server:client"]}}', '{"Read": {"In": ["root:somebody"]}}'
    path.write_text(good)
    authorizer = permissions_authorizer(PermissionsFile(path))
    async with (
        serve(family.service, family.server, listen=["127.0.0.1:0"], authorizer=authorizer, now=family.clock) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):

        async def answer() -> str:
            try:
                return str(await client.call("Echo", "x"))
            except CallError as error:
                return f"{error.code}: {error.message}"

        assert await answer() == "x"
        path.write_text(other)
        assert "none has the right Read" in await answer()
        path.write_text(good)
        assert await answer() == "x"
        for damage in ("{", '{"Boss": {}}', None):
            path.unlink() if damage is None else path.write_text(damage)
            for _ in range(2):
                refusal = await answer()
                assert refusal.startswith("no-access: ")
                assert "nobody is allowed" in refusal
                assert str(path) not in refusal, "where the file is is nobody's business"
            said = [r.message for r in caplog.records if "nobody is allowed anything" in r.message]
            assert str(path) in said[-1]
        assert len(said) == 3, "each once"
        caplog.set_level("INFO")
        path.write_text(good)
        assert await answer() == "x"
        assert "are good again" in caplog.text


async def test_permissions_by_tag(family: Parties) -> None:
    """A permissions authorizer looks at the method's one tag; each call gets its own answer."""
    permissions = permissions_authorizer(Permissions.parse('{"Read": {"In": ["root:server:client"]}}'))
    async with (
        serve(
            family.service, family.server, listen=["127.0.0.1:0"], authorizer=permissions, now=family.clock
        ) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):
        assert await client.call("Echo", "x") == "x"
        with pytest.raises(CallError, match="none has the right Admin"):
            await client.call("Take")


async def test_a_server_that_gets_other_blessings_shows_them(family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """New connections see them at once, open ones soon after, without a new connection."""
    async with served(family) as server, connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
        await bless_again(family, family.server, "server:renewed", Caveat.unconstrained())
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as other:
            assert other.server.names == ("root:server:renewed",)
        with trio.fail_after(10):
            while client.server.names != ("root:server:renewed",):  # renewal has its own interval, and no event
                await trio.sleep(0.1)
                await client.call("__identify")


async def test_a_server_without_blessings(family: Parties) -> None:
    """A server without blessings can be identified, and talked to with `insecure` alone: an unclaimed one."""
    await family.server.set_default(None)
    async with served(family) as server:
        with pytest.raises(NotTrustedError, match="presented no blessings"):
            async with connect(f"/{server.addresses[0]}", family.client, now=family.clock):
                pass
        async with connect(f"/{server.addresses[0]}", family.client, insecure=True, now=family.clock) as client:
            assert client.server.presented == ()
            assert client.server.public_key == family.server.public_key


async def test_connecting_over_tcp_needs_a_principal(family: Parties) -> None:
    """Nobody is anonymous on the network."""
    async with served(family) as server:
        with pytest.raises(InputError, match="needs a principal"):
            async with connect(f"/{server.addresses[0]}", None):
                pass


class Moody(LocalSigner):
    """A signer behind an agent that can be away."""

    is_away = False

    async def sign(self, kind: SignatureType, payload: bytes, external_aad: bytes = b"") -> bytes:
        """Sign, or fail as the client of an agent fails."""
        if Moody.is_away:
            raise UnreachableError("the agent is away")
        return await super().sign(kind, payload, external_aad)


async def test_a_server_outlives_its_agent(
    family: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its key a server takes no new connections and renews nothing; open ones go on, and so does it later."""
    monkeypatch.setattr(Moody, "is_away", False)
    family.server = Principal(Moody(PrivateKey.generate()), None, family.server.roots)
    await bless_again(family, family.server, "server", Caveat.unconstrained())
    async with served(family) as server, connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
        await bless_again(family, family.server, "server:renewed", Caveat.unconstrained())
        monkeypatch.setattr(Moody, "is_away", True)
        with pytest.raises(UnreachableError):
            async with connect(f"/{server.addresses[0]}", family.client, now=family.clock):
                pass
        with trio.fail_after(10):
            while "cannot show renewed blessings" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                await trio.sleep(0.1)
        assert await client.call("Quick", "x") == "x"
        monkeypatch.setattr(Moody, "is_away", False)
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as other:
            assert other.server.names == ("root:server:renewed",)
