"""Blessing between two machines: one listens for blessings, the other sends them. Neither needs to trust the other before.

The command that `recvblessings` prints carries the receiver's key and a token: the key tells the sender whom it blesses, the token
tells the receiver who was given the command.
"""

import hmac
import json
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import trio

from vanadium_node import cbor
from vanadium_node.cli.output import emit, note
from vanadium_node.cli.principal_input import own_principal
from vanadium_node.errors import CallError, ErrorCode, InputError, NotTrustedError, UsageError
from vanadium_node.rpc import Call, Service, Tag, connect, method, serve
from vanadium_node.security.authorization import everyone
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.storage.files import read_limited, write_private

TOKEN_BYTES: Final = 16
MAX_ARGUMENTS_BYTES: Final = 4096
SEND_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Who waits for blessings: its key's fingerprint, the token it expects, and where it listens."""

    key: str
    token: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `recvblessings --remote-arg-file` writes.

        Raises:
            InputError: it is something else.
        """
        try:
            value = json.loads(text)
        except ValueError as error:
            raise InputError("the remote arguments are not JSON", hint=_ARGUMENTS_HINT) from error
        match value:
            case {"key": str(key), "token": str(token), "name": str(name)}:
                return cls(key=key, token=token, name=name)
            case _:
                raise InputError("the remote arguments lack 'key', 'token' or 'name'", hint=_ARGUMENTS_HINT)

    def encode(self) -> str:
        """Return the content of the file of arguments."""
        return json.dumps({"key": self.key, "token": self.token, "name": self.name}) + "\n"


_ARGUMENTS_HINT: Final = "'principal recvblessings --remote-arg-file FILE' writes such a file"


def receiver_from(who: str | None, key: str | None, token: str | None, arguments: Path | None) -> Receiver:
    """Return the receiver that the options of `bless` name.

    Raises:
        UsageError: they name it halfway, or twice.
        InputError: the file of arguments is none.
    """
    if arguments is not None:
        if who is not None or key is not None or token is not None:
            raise UsageError(
                "--remote-arg-file holds the key, the token and the name", hint="give nothing else but EXTENSION"
            )
        return Receiver.parse(read_limited(arguments, max_bytes=MAX_ARGUMENTS_BYTES).decode(errors="replace"))
    if key is None or token is None or who is None:
        raise UsageError(
            "--remote-key and --remote-token belong together, with the name", hint="run what 'recvblessings' printed"
        )
    return Receiver(key=key, token=token, name=who)


async def send(
    principal: Principal, receiver: Receiver, source: Blessings, extension: str, caveats: Sequence[Caveat]
) -> Blessings:
    """Bless a receiver, give it the blessings, and return them.

    It sees this principal's key before its own is checked, and nothing else.

    Raises:
        NotTrustedError: something with another key listens there.
        CallError: the receiver refuses them.
    """
    nameless = Principal(principal.signer)
    async with connect(receiver.name, nameless, insecure=True, timeout=SEND_SECONDS) as client:
        key = client.server.public_key
        if key is None or not hmac.compare_digest(key.fingerprint.encode(), receiver.key.encode()):
            raise NotTrustedError(
                f"key mismatch: {receiver.name} has the key {key}, not {receiver.key}",
                hint="run the command that 'recvblessings' printed, as it is now",
            )
        blessings = await principal.bless(key, source, extension, caveats)
        await client.call("Grant", receiver.token, returns=type(None), granted=blessings, timeout=SEND_SECONDS)
    return blessings


class BlessingsReceiver(Service):
    """BlessingsReceiver waits for blessings."""

    authorizer = staticmethod(everyone)
    """Who knows the token may send; the sender's names mean nothing here yet."""

    def __init__(self, key: PublicKey, token: str) -> None:
        self._key = key
        self._token = token
        self._send, self._receive = trio.open_memory_channel[Blessings](1)

    @method(tag=Tag.WRITE)
    def grant(self, call: Call, token: str) -> None:
        """Gives the blessings granted on the call, with the token that the receiver was started with."""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise CallError(ErrorCode.NOT_TRUSTED, "blessings received from unexpected sender")
        if call.granted is None or call.granted.public_key != self._key:
            raise CallError(ErrorCode.BAD_ARG, "the call grants no blessings for the receiver's key")
        try:
            self._send.send_nowait(call.granted)
        except trio.WouldBlock as error:
            raise CallError(ErrorCode.EXISTS, "blessings were received already") from error

    async def received(self) -> Blessings:
        """Wait for the blessings and return them."""
        return await self._receive.receive()


async def receive(for_peer: str, set_default: bool, remote_arg_file: Path | None, listen: str) -> None:
    """Listen for blessings as the current principal, print how to send them, and keep what comes."""
    pattern = Pattern.parse(for_peer) if for_peer else None
    token = cbor.text(secrets.token_bytes(TOKEN_BYTES))
    async with own_principal() as principal:
        service = BlessingsReceiver(principal.public_key, token)
        async with serve(service, principal, listen=[listen], authorizer=everyone) as server:
            name = f"/{_reachable(server.addresses[0], listen)}"
            receiver = Receiver(key=principal.public_key.fingerprint, token=token, name=name)
            if remote_arg_file is None:
                emit(
                    f"vanadium-node principal bless --remote-key={receiver.key} --remote-token={token} {name} EXTENSION"
                )
            else:
                write_private(remote_arg_file, receiver.encode().encode())
                emit(f"vanadium-node principal bless --remote-arg-file {remote_arg_file} EXTENSION")
            note("Run this where the blesser is, with the caveats it chooses.")
            blessings = await service.received()
        await principal.adopt(blessings, peers=pattern, is_default=set_default)
    note(f"Received blessings: {blessings}")


def _reachable(address: str, listen: str) -> str:
    """Return an address under which other machines reach a listener on all addresses: that of the way out."""
    if not listen.startswith(":"):
        return address
    port = address.rpartition(":")[2]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: sends nothing, only asks the routing table
            return f"{probe.getsockname()[0]}:{port}"
        except OSError:
            return address
