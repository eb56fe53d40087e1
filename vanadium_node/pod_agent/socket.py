"""The pod agent's socket: there when there is an identity behind it, and only then.

It is bound under another name in the same directory and renamed, so that whoever sees it can connect and gets an answer;
hiding it renames it back, so that clients that are connected already stay so.
"""

import errno
import os
import socket
import stat
from pathlib import Path

from vanadium_node.errors import ConfigurationError, StorageError
from vanadium_node.storage.files import explained
from vanadium_node.storage.hidden import hidden_path


class PodSocket:
    """The path of a socket that is served under `hidden` and shown under `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hidden = hidden_path(path)
        self._shown: tuple[int, int] | None = None
        """Which file clients find; None: none."""

    @property
    def is_shown(self) -> bool:
        """Whether clients find the socket."""
        return self._shown is not None

    def show(self) -> None:
        """Let clients find the socket.

        Raises:
            StorageError: the directory cannot be changed.
        """
        if self._shown is None:
            with explained("make the socket", self.path):
                shown = _file_at(self.hidden)
                self.hidden.replace(self.path)
            self._shown = shown

    def hide(self) -> None:
        """Let no more clients find the socket. What others have put in its place stays.

        Raises:
            StorageError: the directory cannot be changed.
        """
        if self._shown is not None:
            with explained("remove the socket", self.path):
                if _file_at(self.path) == self._shown:
                    self.path.replace(self.hidden)
            self._shown = None

    def check(self) -> None:
        """Make sure that clients who are to find the socket do.

        Raises:
            StorageError: somebody has removed or replaced it.
        """
        with explained("look at the socket", self.path):
            is_there = self._shown is None or _file_at(self.path) == self._shown
        if not is_there:
            raise StorageError(
                f"the socket '{self.path}' was removed or replaced while it was served",
                hint="start the agent again, and see who else uses the socket's directory",
            )

    def clear(self) -> None:
        """Remove what an agent that was killed has left.

        Raises:
            ConfigurationError: another agent serves there.
            StorageError: something else is there, or the directory cannot be used.
        """
        with explained("use the socket's directory", self.path.parent):
            if not stat.S_ISDIR(self.path.parent.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            try:
                mode = self.path.lstat().st_mode
            except FileNotFoundError:
                return
            if not stat.S_ISSOCK(mode):
                raise StorageError(
                    f"'{self.path}' is there already, and is no socket", hint="choose another --socket-path"
                )
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                if probe.connect_ex(os.fspath(self.path)) != errno.ECONNREFUSED:
                    raise ConfigurationError(
                        f"another agent serves '{self.path}'", hint="stop it, or choose another --socket-path"
                    )
            self.path.unlink(missing_ok=True)


def _file_at(path: Path) -> tuple[int, int] | None:
    """Return which file is at a path; None: none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
