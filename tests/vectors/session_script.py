"""What happens in the golden session: each step is one frame, and who wishes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from make_vectors import FREE, ROOT, SHOP, VectorSigner, chain_of

from vanadium_node.errors import ErrorCode
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.cose import SignatureType
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.frames import Auth
from vanadium_node.wire.handshake import Role, auth_frame, session_payload
from vanadium_node.wire.limits import STREAM_WINDOW_BYTES

BINDING = bytes(range(32))
"""The TLS exporter's value of the session's channel."""
UNKNOWN_FRAME = bytes.fromhex("488318200063") + b"new"
"""A frame that a later version may send: `[32, 0, "new"]`."""


@dataclass(frozen=True)
class Step:
    """One frame, told in a sentence, and the wish that makes an end send it."""

    role: Role
    title: str
    wish: Callable[[Connection], object]
    is_dropped: bool = False
    """The other end reports no event for it."""
    crosses: bool = False
    """It is sent before the frame of the step before has arrived."""


async def _shown(role: Role, signer: VectorSigner, blessings: Blessings) -> Auth:
    payload = session_payload(role, BINDING, signer.public_key.der, blessings.encoded, ())
    return auth_frame(signer.public_key, blessings, (), await signer.sign(SignatureType.SESSION, payload))


async def script() -> list[Step]:
    """Return the steps, in order."""
    server_blessings = Blessings.from_chains([await chain_of((ROOT, "root", (FREE,)))])
    client_blessings = Blessings.from_chains([await chain_of((ROOT, "root", (FREE,)), (SHOP, "shop", (FREE,)))])
    server = await _shown(Role.SERVER, ROOT, server_blessings)
    client = await _shown(Role.CLIENT, SHOP, client_blessings)
    s, c = Role.SERVER, Role.CLIENT
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    late = "this server is about to stop"
    return [
        Step(s, "the server shows itself first", lambda end: end.send_auth(server)),
        Step(c, "the client trusts it, and shows itself", lambda end: end.send_auth(client)),
        Step(c, "a call, with half a second to answer",
             lambda end: end.send_request("Get", "basket", ["apple", 2], deadline_ms=500)),
        Step(s, "its result", lambda end: end.send_response(1, {"price": 1.5})),
        Step(c, "a call that streams, and carries a trace",
             lambda end: end.send_request("Chat", "", [], has_items=True, trace_id=trace)),
        Step(c, "an item of the caller's", lambda end: end.send_item(3, "one")),
        Step(s, "an item of the method's", lambda end: end.send_item(3, b"two")),
        Step(s, "credit, as after half a window of items has been read",
             lambda end: end.item_read(3, STREAM_WINDOW_BYTES // 2)),
        Step(c, "no more items of the caller's", lambda end: end.send_end(3)),
        Step(s, "the method returns nothing, which ends the call", lambda end: end.send_response(3, None)),
        Step(s, "the server may call, too; its streams are even", lambda end: end.send_request("Look", "", [])),
        Step(c, "but this client has no methods: an error",
             lambda end: end.send_error(2, ErrorCode.UNKNOWN_METHOD, "a client has no methods", {})),
        Step(c, "a call that takes long", lambda end: end.send_request("Wait", "", [])),
        Step(c, "the client gives it up", lambda end: end.send_cancel(5)),
        Step(s, "an item that crosses the cancel: dropped", lambda end: end.send_item(5, -1), is_dropped=True, crosses=True),
        Step(c, "are you there?", lambda end: end.send_ping(7), is_dropped=True),
        Step(s, "yes", lambda end: None),
        Step(c, "a frame of a kind that does not exist yet, from 32 on: ignored",
             lambda end: end.outgoing.append(UNKNOWN_FRAME), is_dropped=True),
        Step(s, "the server takes no new calls", lambda end: end.send_goaway("", late)),
        Step(c, "a call that crosses this", lambda end: end.send_request("Get", "", []), is_dropped=True, crosses=True),
        Step(s, "is refused, and safe to repeat elsewhere", lambda end: None),
    ]  # fmt: skip


def played(steps: list[Step]) -> list[bytes]:
    """Return the bytes of each step, played between two machines."""
    ends = {role: Connection(role) for role in Role}
    frames: list[bytes] = []
    late: tuple[Role, bytes] | None = None
    for step in steps:
        if late is not None and not step.crosses:
            ends[late[0].other].receive(late[1])
        step.wish(ends[step.role])
        frames.append(ends[step.role].take_outgoing())
        if late is not None and step.crosses:
            ends[late[0].other].receive(late[1])
        late = (step.role, frames[-1])
    return frames
