"""Names of servers and places to listen, as text and as values.

/host:port/suffix                 a server, and an object on it
/(pattern)@host:port/suffix       a server that must present a name matching the pattern
unix:/path                        a server of this machine
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Self, TypeAlias

from vanadium_node.config.values import MAX_SOCKET_PATH_BYTES
from vanadium_node.errors import InputError, clip
from vanadium_node.security.pattern import Pattern

_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[-.\w]+)?)\]|(?P<host>[^\s:/@()\[\]]*)):(?P<port>[0-9]{1,5})"
)
_EXAMPLES: Final = "a name is like '/host:2345', '/(root:shop)@host:2345/suffix', '/[::1]:2345' or 'unix:/path'"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (a name or an address; empty: all of this machine's) and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port`, `:port` or `[ipv6]:port`. Raises InputError."""
        match = _HOST_PORT.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise InputError(
                f"'{clip(text, 120)}' is not an address", hint="an address is like 'host:2345' or '[::1]:2345'"
            )
        return cls(match["ipv6"] or match["host"] or "", int(match["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: Path

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `unix:/path`. Raises InputError, also for a path that the system could not take."""
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise InputError(f"'{clip(text, 120)}' names no socket", hint="write it like 'unix:/run/agent.sock'")
        if len(path.encode()) > MAX_SOCKET_PATH_BYTES:
            raise InputError(
                f"the socket path '{clip(path, 200)}' is {len(path.encode())} bytes long; the system takes at most "
                f"{MAX_SOCKET_PATH_BYTES}",
                hint="choose a shorter directory",
            )
        return cls(Path(path))

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress


def parse_listen_address(text: str) -> Address:
    """Read a place to listen: `host:port`, `:port`, `[ipv6]:port` or `unix:/path`. Raises InputError."""
    return UnixAddress.parse(text) if text.startswith("unix:") else TcpAddress.parse(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """Where a server is, who it must be, and which of its objects is meant."""

    address: Address
    pattern: Pattern | None = None
    suffix: str = ""

    @classmethod
    @lru_cache(maxsize=256)  # a program calls few servers, and connects to them again and again
    def parse(cls, text: str) -> Self:
        """Read a name. Raises InputError, which quotes the text and shows examples."""
        if text.startswith("unix:"):
            return cls(address=UnixAddress.parse(text))
        if not text.startswith("/"):
            raise InputError(f"'{clip(text, 120)}' is not the name of a server", hint=_EXAMPLES)
        rest, pattern = text[1:], None
        if rest.startswith("("):
            inside, separator, rest = rest[1:].partition(")@")
            if not separator:
                raise InputError(f"'{clip(text, 120)}' has no ')@' after its pattern", hint=_EXAMPLES)
            try:
                pattern = Pattern.parse(inside)
            except InputError as error:
                raise InputError(f"'{clip(text, 120)}' is not the name of a server: {error}") from error
        place, _, suffix = rest.partition("/")
        try:
            address = TcpAddress.parse(place)
        except InputError as error:
            raise InputError(
                f"'{clip(text, 120)}' is not the name of a server: {error.message}", hint=_EXAMPLES
            ) from error
        if not address.host or not address.port:
            raise InputError(f"'{clip(text, 120)}' lacks a host or a port", hint=_EXAMPLES)
        return cls(address=address, pattern=pattern, suffix=suffix)

    def __str__(self) -> str:
        if isinstance(self.address, UnixAddress):
            return str(self.address)
        who = f"({self.pattern})@" if self.pattern is not None else ""
        return f"/{who}{self.address}" + (f"/{self.suffix}" if self.suffix else "")
