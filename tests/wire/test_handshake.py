"""Showing oneself: what is accepted, and every way in which an `auth` frame can be another's."""

import pytest
from connection_pair import BINDING, ConnectionPair, sign_auth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vanadium_node import cbor
from vanadium_node.errors import InputError, NotTrustedError, ProtocolError
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.principal import Principal
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import Failed
from vanadium_node.wire.frames import Auth, Ping, encode_frame
from vanadium_node.wire.handshake import HandshakeState, Role, verify_auth
from vanadium_node.wire.limits import Limits


def test_both_ends_show_themselves_and_then_calls_are_made(strangers, alice: Principal, bob: Principal) -> None:  # type: ignore[no-untyped-def]
    """The server first; the client's first request may follow in the flight of its own auth."""
    shown = sign_auth(alice, Role.SERVER, BINDING, alice.store.default)
    strangers.server.send_auth(shown)
    strangers.carry()
    assert strangers.taken(Role.CLIENT) == [shown]
    assert verify_auth(shown, Role.SERVER, BINDING).blessings == alice.store.default
    strangers.client.send_auth(sign_auth(bob, Role.CLIENT, BINDING, bob.store.default))
    strangers.client.send_request("Get", "", [])
    strangers.carry()
    assert len(strangers.taken(Role.SERVER)) == 2
    assert strangers.server.handshake is strangers.client.handshake is HandshakeState.OPEN


def test_a_client_cannot_show_itself_before_the_server(strangers: ConnectionPair, bob: Principal) -> None:
    """Our own mistake is refused; nothing is sent."""
    with pytest.raises(InputError):
        strangers.client.send_auth(sign_auth(bob, Role.CLIENT, BINDING, None))
    with pytest.raises(InputError):
        strangers.client.send_request("Get", "", [])
    assert strangers.client.outgoing == []


def test_somebody_without_blessings_still_proves_a_key(alice: Principal) -> None:
    """An unclaimed server has a key and no name."""
    credentials = verify_auth(sign_auth(alice, Role.SERVER, BINDING, None), Role.SERVER, BINDING)
    assert credentials.public_key == alice.public_key
    assert credentials.blessings is None


def test_replay_reflection_and_exchange_are_refused(alice: Principal, bob: Principal) -> None:
    """An auth is worth nothing on another channel, in the other role, with other blessings, key or discharges."""
    good = sign_auth(alice, Role.SERVER, BINDING, alice.store.default)
    other = sign_auth(bob, Role.SERVER, BINDING, bob.store.default)
    with pytest.raises(NotTrustedError):
        verify_auth(good, Role.SERVER, bytes(32))
    with pytest.raises(NotTrustedError):
        verify_auth(good, Role.CLIENT, BINDING)
    for changed in (
        good._replace(blessings=other.blessings),
        good._replace(blessings=None),
        good._replace(public_key=other.public_key),
        good._replace(signature=other.signature),
        good._replace(discharges=[b"x"]),
        good._replace(versions=[1, 2]),
    ):
        with pytest.raises(NotTrustedError):
            verify_auth(changed, Role.SERVER, BINDING)


def test_blessings_of_somebody_else_are_refused(alice: Principal, bob: Principal) -> None:
    """Public as blessings are, only the holder of their key can show them."""
    with pytest.raises(NotTrustedError, match="another key"):
        verify_auth(sign_auth(bob, Role.SERVER, BINDING, alice.store.default), Role.SERVER, BINDING)


def test_no_common_version(alice: Principal) -> None:
    """Both ends' versions are named."""
    with pytest.raises(ProtocolError, match=r"\[7\]"):
        verify_auth(sign_auth(alice, Role.SERVER, BINDING, None)._replace(versions=[7]), Role.SERVER, BINDING)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["public_key", "blessings", "signature"]), st.data())
def test_a_changed_byte_is_never_accepted(alice: Principal, field: str, data: st.DataObject) -> None:
    """Flipped bits and cut ends of any part raise PeerErrors, and nothing else."""
    good = sign_auth(alice, Role.SERVER, BINDING, alice.store.default)
    part = bytearray(getattr(good, field))
    if data.draw(st.booleans()):
        part = part[: data.draw(st.integers(0, len(part) - 1))]
    else:
        part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((ProtocolError, NotTrustedError)):
        verify_auth(Auth._make({**good._asdict(), field: bytes(part)}.values()), Role.SERVER, BINDING)


def test_a_truncated_or_reordered_chain_is_refused(alice: Principal) -> None:
    """A chain without its root, or with its certificates exchanged, is none, even when the holder signs for it."""
    blessings = alice.store.default
    assert blessings is not None
    ((root,),) = cbor.decode(blessings.encoded, max_bytes=10_000)
    several: list[list[list[bytes]]] = [[[]], [[root, root]], [], [[root], [root]]]
    for chains in several:
        encoded = cbor.encode(chains)
        shown = sign_auth(alice, Role.SERVER, BINDING, Blessings(encoded, ()))
        with pytest.raises(ProtocolError):
            verify_auth(shown, Role.SERVER, BINDING)


def test_anything_before_auth_ends_the_connection(alice: Principal) -> None:
    """Strangers get no frame but auth, none of more than its size, and no second try."""
    shown = sign_auth(alice, Role.SERVER, BINDING, None)
    for data in (encode_frame(Ping(0, 1)), b"\x5a" + (200_000).to_bytes(4), b"GET / HTTP/1.1"):
        server = Connection(Role.SERVER)
        server.send_auth(shown)
        assert isinstance(server.receive(data)[-1], Failed)
    server = Connection(Role.SERVER, Limits())
    assert isinstance(server.receive(encode_frame(shown))[-1], Failed), "before the server has shown itself"


def test_auth_on_a_unix_socket_is_a_fault(bob: Principal) -> None:
    """There is no channel to bind it to, so it would prove nothing."""
    server = Connection(Role.SERVER, authenticates=False)
    assert isinstance(server.receive(encode_frame(sign_auth(bob, Role.CLIENT, b"", None)))[-1], Failed)
