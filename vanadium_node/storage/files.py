"""Private files, written whole or not at all, and a lock between processes."""

import errno
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Final

import trio

from vanadium_node.errors import DamagedError, StorageError

PRIVATE_FILE: Final = 0o600
PRIVATE_DIRECTORY: Final = 0o700
LOCK_RETRY_SECONDS: Final = 0.02

_HINTS: Final = {
    errno.ENOENT: "check the path",
    errno.EACCES: "check who owns it and its permissions",
    errno.EPERM: "check who owns it and its permissions",
    errno.ENOSPC: "make room on the disk and try again",
    errno.EDQUOT: "make room in your quota and try again",
    errno.EIO: "check the disk's health; the system's log may say more",
    errno.EROFS: "choose a place on a file system that can be written to",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file, not a directory",
}


def storage_error(attempt: str, path: Path, error: OSError) -> StorageError:
    """Return the sentence for a system call that failed: what was attempted, on which path, why, and what to do."""
    why = (error.strerror or str(error)).lower()
    kind = DamagedError if attempt == "read" and error.errno == errno.EIO else StorageError
    return kind(f"cannot {attempt} '{path}': {why}", hint=_HINTS.get(error.errno or 0, "check the path"))


@contextmanager
def explained(attempt: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside into a StorageError that names the attempt and the path."""
    try:
        yield
    except OSError as error:
        raise storage_error(attempt, path, error) from error


def read_limited(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of a file.

    Raises:
        StorageError: it cannot be read, or is longer than `max_bytes`.
    """
    with explained("read", path), path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise StorageError(
            f"'{path}' is longer than the {max_bytes} bytes expected of it", hint="is it the right file?"
        )
    return data


def write_private(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Replace a file by one with this content that only its owner can read, atomically and durably.

    After a crash at any point the path holds the old content or the new one. A leftover of the temporary file beside it
    is harmless and private.

    Raises:
        StorageError: it cannot be written, and the old file is untouched; or its name cannot be made durable, and it is there.
    """
    with write_private_file(path, mode=mode) as file:
        file.write(data)


@contextmanager
def write_private_file(path: Path, *, mode: int = PRIVATE_FILE) -> Iterator[IO[bytes]]:
    """Open a file to be written in the block; it replaces the one at `path`, as `write_private` does, when the block is left.

    Raises:
        StorageError: as for `write_private`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with explained("write", path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def make_sure_of_room(beside: Path, size: int) -> None:
    """Make sure that so many bytes can be written, durably, beside a file; nothing of them stays.

    Raises:
        StorageError: they cannot.
    """
    temporary = beside.with_name(f".{beside.name}.{secrets.token_hex(4)}")
    with explained("write beside", beside):
        try:
            with temporary.open("xb") as file:
                file.write(bytes(size))
                file.flush()
                os.fsync(file.fileno())
        finally:
            temporary.unlink(missing_ok=True)


def make_private_directory(path: Path) -> bool:
    """Make a directory, with its parents, that only its owner can enter; tell whether it was not there before.

    Raises:
        StorageError: it cannot be made, or the path is something else.
    """
    with explained("make the directory", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode=PRIVATE_DIRECTORY)
        except FileExistsError:
            if not path.is_dir():
                raise
            return False
        sync_directory(path.parent)
    return True


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`, which is made if need be, or fail at once: it says that `what` is in use.

    Raises:
        StorageError: another process holds it, or it cannot be made.
    """
    with explained("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"another process uses {what}", hint="end it first, or choose another directory"
            ) from error
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock file at `path`, which is made if need be; wait while another process, or task, holds it.

    Raises:
        StorageError: the lock file cannot be made.
    """
    descriptor = _open_lock(path)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await trio.sleep(LOCK_RETRY_SECONDS)
            else:
                break
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock file at `path`, which is made if need be, until it is closed; None: another holds it.

    Raises:
        StorageError: the lock file cannot be made.
    """
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _open_lock(path: Path) -> int:
    with explained("lock", path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
