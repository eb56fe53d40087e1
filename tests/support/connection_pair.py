"""Two connections joined by memory, and `auth` frames for them."""

from dataclasses import dataclass, field

import trio

from vanadium_node.security.blessing import Blessings
from vanadium_node.security.cose import SignatureType
from vanadium_node.security.principal import Principal
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import Event
from vanadium_node.wire.frames import Auth
from vanadium_node.wire.handshake import Role, auth_frame, session_payload
from vanadium_node.wire.limits import Limits

BINDING = bytes(range(32))


@dataclass
class ConnectionPair:
    """A client and a server, and the bytes between them, carried `step` at a time."""

    client: Connection
    server: Connection
    step: int = 1 << 30
    client_events: list[Event] = field(default_factory=list)
    server_events: list[Event] = field(default_factory=list)

    def carry(self) -> None:
        """Carry bytes both ways until both are silent."""
        while self.client.outgoing or self.server.outgoing:
            for source, target, happened in (
                (self.client, self.server, self.server_events),
                (self.server, self.client, self.client_events),
            ):
                data = source.take_outgoing()
                for start in range(0, len(data), self.step):
                    happened.extend(target.receive(data[start : start + self.step]))

    def taken(self, role: Role) -> list[Event]:
        """Return and forget what happened at one end."""
        events = self.client_events if role is Role.CLIENT else self.server_events
        taken = list(events)
        events.clear()
        return taken


def sign_auth(principal: Principal, role: Role, binding: bytes, blessings: Blessings | None) -> Auth:
    """Return the frame with which a principal shows itself."""
    encoded = None if blessings is None else blessings.encoded

    async def sign() -> bytes:
        payload = session_payload(role, binding, principal.public_key.der, encoded, ())
        return await principal.sign(SignatureType.SESSION, payload)

    return auth_frame(principal.public_key, blessings, (), trio.run(sign))


def pair_of(limits: Limits | None = None, step: int = 1 << 30) -> ConnectionPair:
    """Return a pair that needs no handshake, as on a unix socket."""
    chosen = limits or Limits()
    return ConnectionPair(
        Connection(Role.CLIENT, chosen, authenticates=False), Connection(Role.SERVER, chosen, authenticates=False), step
    )
