"""Who owns a server: its principal and permissions on disk, before and after the claim.

The claim is made by one replacement of the principal's state file: a server whose stored principal has default blessings
is claimed. The permissions are written before, and mean nothing until then; so a crash at any point leaves the server
unclaimed or wholly claimed. Their file ends with a line that holds a digest of what is before it: a name in which a bit
changed would be somebody else's.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vanadium_node.errors import DamagedError, InputError
from vanadium_node.security.access import MAX_TEXT_BYTES, Permissions
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.store import BlessingStore
from vanadium_node.storage.credentials import CredentialsDirectory
from vanadium_node.storage.files import make_private_directory, read_limited, write_private

PRINCIPAL_DIRECTORY: Final = "principal"
PERMISSIONS_FILE: Final = "permissions.json"
_DIGEST: Final = "\nsha256:"
_RESTORE: Final = "restore it from a backup of the whole directory"
UNCLAIMED: Final = "unclaimed"
"""The name under which a server shows its key before the claim, so that the claimer can bless it."""


@dataclass(slots=True, eq=False)
class Ownership:
    """A server's principal and who may use it: permissions, or what returns them as they are now; None until it is claimed."""

    principal: Principal
    permissions: Permissions | Callable[[], Permissions] | None
    _permissions_file: Path | None = field(default=None, repr=False)
    _roots: Sequence[Blessings] = field(default=(), repr=False)

    @property
    def is_claimed(self) -> bool:
        """Tell whether the server has an owner."""
        return self.permissions is not None

    @classmethod
    def given(cls, principal: Principal, permissions: Permissions | Callable[[], Permissions]) -> "Ownership":
        """Return the ownership of a server that was started with blessings and permissions of its own."""
        return cls(principal, permissions)

    def allow(self, tag: str, names: Iterable[str]) -> bool:
        """Tell whether one of the names has the right; nobody has one before the claim.

        Raises:
            VanadiumError: the permissions cannot be read now.
        """
        current = self.permissions() if callable(self.permissions) else self.permissions
        return current is not None and current.allow(tag, names)

    async def claim(self, blessings: Blessings, permissions: Permissions) -> None:
        """Give the server its owner's blessings and permissions, all or nothing.

        Raises:
            InputError: it is claimed already, or the blessings are not bound to its key.
            StorageError: the claim could not be stored; the server is still unclaimed.
        """
        if self._permissions_file is None or self.is_claimed:
            raise InputError("the server is already claimed")
        write_private(self._permissions_file, _with_digest(permissions.encode()))
        await self.principal.adopt(blessings)
        self.permissions = permissions
        self.recognize_roots()

    def recognize_roots(self) -> None:
        """Recognize, in memory, the roots that the server was told of when it was started."""
        for root in self._roots:
            self.principal.roots = self.principal.roots.with_roots_of(root)


async def open_ownership(directory: Path, roots: Sequence[Blessings]) -> Ownership:
    """Open the ownership kept in a directory; in an empty one, make a principal that waits for its claim.

    The roots of the blessings `roots` are recognized: before the claim, they decide whose names a claimer can have.

    Raises:
        DamagedError: something in the directory is damaged; nothing in it was changed.
        StorageError: it cannot be read or written.
    """
    make_private_directory(directory)
    credentials = CredentialsDirectory(directory / PRINCIPAL_DIRECTORY)
    if credentials.holds_principal():
        principal = _opened(credentials)
    else:
        principal = await credentials.keep(PrivateKey.generate(), BlessingStore(), BlessingRoots())
    file = directory / PERMISSIONS_FILE
    if principal.store.default is not None:
        ownership = Ownership(principal, _read_permissions(file), file, roots)
    else:
        principal.store = BlessingStore(
            default=await principal.bless_self(UNCLAIMED)
        )  # in memory: nothing of it is kept
        ownership = Ownership(principal, None, file, roots)
    ownership.recognize_roots()
    return ownership


def _opened(credentials: CredentialsDirectory) -> Principal:
    try:
        return credentials.open()
    except DamagedError as error:  # another principal would be nobody's server
        raise DamagedError(error.message, hint=_RESTORE) from error


def _read_permissions(file: Path) -> Permissions:
    data = read_limited(file, max_bytes=MAX_TEXT_BYTES)
    text, digest, _ = data.decode(errors="replace").partition(_DIGEST)
    if digest and data != _with_digest(text):
        hint = "restore it from a backup; if you changed it, remove its last line"
        raise DamagedError(f"'{file}' is damaged: its digest is another one", hint=hint)
    try:
        return Permissions.parse(text)  # an earlier version wrote no digest
    except InputError as error:
        raise DamagedError(f"'{file}' is damaged: {error.message}", hint="restore it from a backup") from error


def _with_digest(text: str) -> bytes:
    return f"{text}{_DIGEST}{hashlib.sha256(text.encode()).hexdigest()}\n".encode()
