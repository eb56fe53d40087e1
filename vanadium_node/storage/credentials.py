"""A credentials directory: a principal on disk, private, changed by one process at a time.

    private-key.pem        PKCS#8, encrypted with the passphrase when there is one
    state-<fingerprint>    store and roots of the principal with that key, signed by it
    lock                   held while the state is changed
    agent/                 where an agent serves the principal, if there is one

The key file is what makes a directory a principal's: it is written last, and replaced in one step when a new principal
overwrites an old one, so that a crash leaves the old one, the new one, or none.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vanadium_node import cbor
from vanadium_node.errors import DamagedError, DecodeError, InputError, NotTrustedError, StorageError
from vanadium_node.security.cose import LocalSigner, SignatureType, verify_signed
from vanadium_node.security.keys import PrivateKey, PublicKey
from vanadium_node.security.principal import Change, Principal
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.store import BlessingStore
from vanadium_node.storage.files import locked, make_private_directory, read_limited, try_lock, write_private

KEY_FILE: Final = "private-key.pem"
LOCK_FILE: Final = "lock"
AGENT_DIRECTORY: Final = "agent"
MAX_KEY_BYTES: Final = 16 * 1024
MAX_STATE_BYTES: Final = 32 * 1024 * 1024

Passphrase = Callable[[], bytes]
"""Asks for the passphrase; called only when the key is encrypted."""


@dataclass(frozen=True, slots=True)
class CredentialsDirectory:
    """The directory of one principal."""

    path: Path

    @property
    def key_file(self) -> Path:
        """The file that makes the directory a principal's."""
        return self.path / KEY_FILE

    def state_file(self, key: PublicKey) -> Path:
        """The file with store and roots of the principal with that key."""
        return self.path / state_file_name(key)

    @property
    def agent_socket(self) -> Path:
        """Where an agent serves the principal."""
        return self.path / AGENT_DIRECTORY / "sock"

    def holds_principal(self) -> bool:
        """Tell whether there is a principal in it."""
        return self.key_file.exists()

    def is_encrypted(self) -> bool:
        """Tell whether opening the principal takes a passphrase. Where there is none, it does not."""
        return self.holds_principal() and is_encrypted(read_limited(self.key_file, max_bytes=MAX_KEY_BYTES))

    def lock_for_agent(self) -> int | None:
        """Make the agent's directory and return the descriptor of its lock, which is held until it is closed; None: another holds it.

        Raises:
            StorageError: the directory cannot be made.
        """
        make_private_directory(self.agent_socket.parent)
        return try_lock(self.agent_socket.with_name(LOCK_FILE))

    async def create(
        self, key: PrivateKey, name: str, *, passphrase: bytes | None = None, overwrite: bool = False
    ) -> Principal:
        """Make a principal that blesses itself as `name`, and keep it here.

        Raises:
            StorageError: there is one already (unless `overwrite`), or the directory cannot be written; nothing is left.
            InputError: the name is not allowed; nothing is left.
        """
        fresh = await Principal.create(key, name)
        return await self.keep(key, fresh.store, fresh.roots, passphrase=passphrase, overwrite=overwrite)

    async def keep(
        self,
        key: PrivateKey,
        store: BlessingStore,
        roots: BlessingRoots,
        *,
        passphrase: bytes | None = None,
        overwrite: bool = False,
    ) -> Principal:
        """Keep a principal here, made elsewhere.

        Raises:
            StorageError: there is one already (unless `overwrite`), or the directory cannot be written; nothing is left.
        """
        made = make_private_directory(self.path)
        lock = self.path / LOCK_FILE
        had_lock = lock.exists()
        keeper = _DirectoryKeeper(self.path, LocalSigner(key))
        try:
            async with locked(lock):
                self.refuse_to_replace(overwrite=overwrite)
                await self._write(keeper, key.to_pem(passphrase), store, roots)
        except BaseException:
            if not had_lock and not self.holds_principal():
                lock.unlink(missing_ok=True)
            if made:
                with suppress(OSError):  # somebody else has put something there meanwhile
                    self.path.rmdir()
            raise
        return Principal(keeper.signer, store, roots, keeper)

    def refuse_to_replace(self, *, overwrite: bool) -> None:
        """Make sure that a principal may be kept here. Raises StorageError where there is one already, unless `overwrite`."""
        if self.holds_principal() and not overwrite:
            raise StorageError(
                f"'{self.path}' holds a principal already",
                hint="choose another directory, or replace it with --overwrite",
            )

    async def _write(self, keeper: "_DirectoryKeeper", pem: bytes, store: BlessingStore, roots: BlessingRoots) -> None:
        """Write the state, then the key, which makes it the directory's; then forget the states of other keys."""
        replaces = self.holds_principal()
        try:
            await keeper.write(store, roots)
            write_private(self.key_file, pem)
        except BaseException:
            if not replaces:
                self.key_file.unlink(missing_ok=True)
            if not (replaces and self._holds(pem)):  # else the old one is gone, and the new one whole, if not durable
                keeper.state_file.unlink(missing_ok=True)
            raise
        for path in self.path.glob("state-*"):
            if path != keeper.state_file:
                path.unlink(missing_ok=True)

    def _holds(self, pem: bytes) -> bool:
        with suppress(StorageError):
            return read_limited(self.key_file, max_bytes=MAX_KEY_BYTES) == pem
        return False

    def open(self, passphrase: Passphrase | None = None) -> Principal:
        """Return the principal kept here; its changes are kept here too.

        Raises:
            DamagedError: something in the directory is damaged, or not the owner's work.
            StorageError: there is none, or it cannot be read.
            InputError: the passphrase is missing or wrong.
        """
        if not self.holds_principal():
            raise StorageError(
                f"there is no principal in '{self.path}'",
                hint=f"make one with 'vanadium-node principal create {self.path} NAME'",
            )
        keeper = _DirectoryKeeper(self.path, LocalSigner(self._read_key(passphrase)))
        others = [path.name for path in self.path.glob("state-*")]
        if others and not keeper.state_file.exists():
            raise _damaged(self.key_file, f"its key is not the one of '{others[0]}'")
        store, roots = keeper.read()
        return Principal(keeper.signer, store, roots, keeper)

    def _read_key(self, passphrase: Passphrase | None) -> PrivateKey:
        path = self.key_file
        pem = read_limited(path, max_bytes=MAX_KEY_BYTES)
        try:
            given = passphrase() if passphrase is not None and is_encrypted(pem) else None
            return PrivateKey.from_pem(pem, given)
        except DecodeError as error:
            raise _damaged(path, error) from error
        except InputError as error:
            raise InputError(f"cannot open '{path}': {error.message}", hint=error.hint) from error


@dataclass(frozen=True, slots=True)
class _DirectoryKeeper:
    """Keeps store and roots in one file that the principal signs."""

    directory: Path
    signer: LocalSigner

    @property
    def state_file(self) -> Path:
        """The file of this principal's state."""
        return self.directory / state_file_name(self.signer.public_key)

    async def update(self, change: Change) -> tuple[BlessingStore, BlessingRoots]:
        """Apply a change to what the directory holds now, waiting for other processes that change it."""
        async with locked(self.directory / LOCK_FILE):
            store, roots = change(*self.read())
            await self.write(store, roots)
        return store, roots

    async def write(self, store: BlessingStore, roots: BlessingRoots) -> None:
        """Replace the state."""
        payload = cbor.encode([store.encode(), roots.encode()])
        write_private(self.state_file, await self.signer.sign(SignatureType.STORE, payload))

    def read(self) -> tuple[BlessingStore, BlessingRoots]:
        """Return the state; whatever is not exactly as this principal wrote it is refused."""
        path = self.state_file
        signed = read_limited(path, max_bytes=MAX_STATE_BYTES)
        try:
            payload = verify_signed(SignatureType.STORE, signed, self.signer.public_key, max_bytes=MAX_STATE_BYTES)
            match cbor.decode(payload, max_bytes=MAX_STATE_BYTES):
                case [bytes(store), bytes(roots)]:
                    return BlessingStore.decode(store), BlessingRoots.decode(roots)
                case _:
                    raise DecodeError("it does not hold a store and roots")
        except (DecodeError, NotTrustedError) as error:
            raise _damaged(path, error) from error


def state_file_name(key: PublicKey) -> str:
    """Return the name of the file with the state of the principal with that key."""
    return f"state-{key.fingerprint.replace(':', '')}"


def is_encrypted(pem: bytes) -> bool:
    """Tell whether a PEM holds an encrypted key."""
    return b"ENCRYPTED PRIVATE KEY" in pem


def _damaged(path: Path, error: Exception | str) -> DamagedError:
    return DamagedError(
        f"'{path}' is damaged: {error}",
        hint="restore the directory from a backup, or make a new principal with --overwrite",
    )
