"""An agent that never answers."""

import trio

from vanadium_node.security.cose import SignatureType, Signer
from vanadium_node.security.keys import PublicKey


class Hanging(Signer):
    """An agent that takes what it shall sign, and never answers."""

    def __init__(self, key: PublicKey) -> None:
        self._key = key

    @property
    def public_key(self) -> PublicKey:
        """The key of the one behind it."""
        return self._key

    async def sign(self, kind: SignatureType, payload: bytes, external_aad: bytes = b"") -> bytes:
        """Never return."""
        await trio.sleep_forever()
        raise AssertionError
