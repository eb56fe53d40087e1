"""Addresses in 127/8 for pods and load balancers, which no other cluster on this machine uses at the same time.

A cluster claims blocks of 254 addresses. The claim is a UDP socket bound to the block's last address, so the kernel sees to it that
nobody else has it and that it ends with the process. Where the system binds nothing but 127.0.0.1, that is what everybody gets.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LOOPBACK: Final = "127.0.0.1"
FIRST_BLOCK: Final = 128 << 8
BLOCKS: Final = 126 << 8
"""127.128.0.0 to 127.253.255.255; below are the addresses of services."""

CLAIM_PORT: Final = 1031
"""Port of the sockets that claim a block; nobody talks to them."""

CLAIM_ATTEMPTS: Final = 64


class Addresses:
    """Gives out addresses; one that was given back is not given out again before all others.

    `has_own` tells whether there are any but 127.0.0.1.
    """

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []
        self._free: list[str] = []
        self.has_own = False

    @classmethod
    @contextmanager
    def claimed(cls) -> Iterator[Addresses]:
        """Hold addresses while the block lasts."""
        addresses = cls()
        try:
            addresses.has_own = addresses._claim()
            yield addresses
        finally:
            for claim in addresses._claims:
                claim.close()

    def take(self) -> str:
        """Return an address that nobody has, or 127.0.0.1 where the system has no other."""
        if not self._free and self.has_own:
            self._claim()
        return self._free.pop(0) if self._free else LOOPBACK

    def give_back(self, address: str) -> None:
        """Take an address back."""
        if address != LOOPBACK:
            self._free.append(address)

    def _claim(self) -> bool:
        for _ in range(CLAIM_ATTEMPTS):
            block = FIRST_BLOCK + secrets.randbelow(BLOCKS)
            prefix = f"127.{block >> 8}.{block & 255}"
            claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                claim.bind((f"{prefix}.255", CLAIM_PORT))
            except OSError as error:
                claim.close()
                if error.errno == errno.EADDRINUSE:
                    continue
                return False
            self._claims.append(claim)
            self._free.extend(f"{prefix}.{host}" for host in range(1, 255))
            return True
        return False
