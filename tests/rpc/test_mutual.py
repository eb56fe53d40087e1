"""What a server proves to its client, at first and renewed: falsely, or somebody else. By a server that a test plays."""

from __future__ import annotations

import pytest
import trio
from acting_server import Actor, Begin, acted, honestly
from rpc_parties import Parties, principal
from trio.testing import wait_all_tasks_blocked
from until import eventually

from vanadium_node.errors import NotTrustedError, PeerError, UnreachableError
from vanadium_node.rpc import Client, connect
from vanadium_node.security.cose import SignatureType
from vanadium_node.wire.frames import Auth
from vanadium_node.wire.handshake import Role, session_payload


async def _of_another_binding(actor: Actor) -> Auth:
    return await actor.auth_of(actor.family.server, binding=bytes(32))


async def _of_the_other_role(actor: Actor) -> Auth:
    return await actor.auth_of(actor.family.server, Role.CLIENT)


async def _stolen(actor: Actor) -> Auth:
    thief, real = await principal("thief"), await honestly(actor)
    auth = await actor.auth_of(thief)
    return auth._replace(blessings=real.blessings)


async def _of_another_version(actor: Actor) -> Auth:
    return (await honestly(actor))._replace(versions=[2])


async def _garbled(actor: Actor) -> Auth:
    who, nonsense = actor.family.server, b"\x81"
    payload = session_payload(Role.SERVER, actor.channel.binding, who.public_key.der, nonsense, ())
    return Auth(0, [1], who.public_key.der, nonsense, [], await who.sign(SignatureType.SESSION, payload))


FALSE: dict[str, tuple[Begin, str]] = {
    "of another binding": (_of_another_binding, "of another connection, role or content"),
    "of the other role": (_of_the_other_role, "of another connection, role or content"),
    "with stolen blessings": (_stolen, "of another connection, role or content|blessings of another key"),
    "of another version": (_of_another_version, r"speaks versions \[2\]"),
    "that cannot be read": (_garbled, "credentials cannot be read"),
}


@pytest.mark.parametrize("what", FALSE)
async def test_a_server_with_false_credentials(family: Parties, what: str) -> None:
    """It is named, with what is wrong, and has seen nothing of its client."""
    actors: list[Actor] = []
    begin, reason = FALSE[what]
    async with acted(family, actors, begin) as name:
        with trio.fail_after(5), pytest.raises(PeerError, match=f"{name}: .*({reason})"):
            await connect(name, family.client, now=family.clock).__aenter__()
        await wait_all_tasks_blocked()
    assert [actor.client_auth for actor in actors] == [None]


@pytest.mark.parametrize("what", [*FALSE, "of the client itself"])
async def test_a_false_renewal_ends_the_connection(family: Parties, what: str) -> None:
    """Calls that wait fail with the reason; a connection made anew is another matter."""

    async def reflected(actor: Actor) -> Auth:
        assert actor.client_auth is not None
        return actor.client_auth

    begin, reason = FALSE.get(what, (reflected, "of another connection, role or content"))
    actors: list[Actor] = []
    async with acted(family, actors) as name:
        async with connect(name, family.client, now=family.clock) as client:
            assert await client.call("Any") == "answer"
            actors[0].show(await begin(actors[0]))
            with trio.fail_after(5), pytest.raises(UnreachableError, match=reason):
                await client.call("Any")
            assert not client.is_open
        async with connect(name, family.client, now=family.clock) as client:
            assert await client.call("Any") == "answer"


async def test_a_server_that_becomes_somebody_else(family: Parties) -> None:
    """No call is made to a name that is not trusted, and calls go on when one that is comes back; the connection stays."""
    actors: list[Actor] = []
    stranger = await principal("stranger")
    async with (
        acted(family, actors) as name,
        connect(name, family.client, now=family.clock) as client,
    ):
        assert await client.call("Any") == "answer"
        actors[0].show(await actors[0].auth_of(stranger))
        await seen(client)
        with pytest.raises(NotTrustedError, match=r"rejected: stranger \(its root"):
            await client.call("Any")
        assert client.is_open
        actors[0].show(await honestly(actors[0]))
        await seen(client)
        assert await client.call("Any") == "answer"
        assert client.server.names == ("root:server",)
    assert len(actors) == 1


async def seen(client: Client) -> None:
    """Have what the server has sent read by a task, as on every connection that stays."""
    trust = client._mutual._trust
    if not client.conversation.is_read:
        client.conversation.start_reading()
    await eventually(lambda: client._mutual._trust is not trust)
