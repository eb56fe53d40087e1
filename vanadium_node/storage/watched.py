"""A file that is read again whenever it changes: what people edit takes effect without a restart."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from vanadium_node.storage.files import explained, read_limited

T = TypeVar("T")


class WatchedFile(Generic[T]):
    """The value that a file's text stands for. Whoever asks gets it as the file is now; a look costs one system call."""

    def __init__(self, path: Path, parse: Callable[[str], T], *, max_bytes: int) -> None:
        self.path = path
        self._parse = parse
        self._max_bytes = max_bytes
        self._seen: tuple[int, ...] = ()
        self._value: T | None = None

    def value(self) -> T:
        """Return the value. A file that cannot be read or parsed now gives no value, rather than an old one.

        Raises:
            StorageError: it is not there, cannot be read, or is too long.
            InputError: as of the parser.
        """
        with explained("read", self.path):
            stat = os.stat(self.path)  # noqa: PTH116 - one call; called for every request
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev)
        if self._value is None or seen != self._seen:
            self._value = None
            text = read_limited(self.path, max_bytes=self._max_bytes).decode(errors="replace")
            self._value = self._parse(text)
            self._seen = seen
        return self._value
