"""The pod agent's socket: there when there is an identity behind it, and only then.

It is bound under another name in the same directory and renamed, so that whoever sees it can connect and gets an answer;
hiding it renames it back, so that clients that are connected already stay so.
"""

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from vanadium_node.errors import ConfigurationError, StorageError
from vanadium_node.storage.files import explained
from vanadium_node.storage.hidden import hidden_path


class PodSocket:
    """The path of a socket that is served under `hidden` and shown under `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hidden = hidden_path(path)
        self._is_shown = False

    @property
    def is_shown(self) -> bool:
        """Whether clients find the socket."""
        return self._is_shown

    def show(self) -> None:
        """Let clients find the socket.

        Raises:
            StorageError: the directory cannot be changed.
        """
        if not self._is_shown:
            with explained("make the socket", self.path):
                self.hidden.replace(self.path)
            self._is_shown = True

    def hide(self) -> None:
        """Let no more clients find the socket.

        Raises:
            StorageError: the directory cannot be changed.
        """
        if self._is_shown:
            with explained("remove the socket", self.path), suppress(FileNotFoundError):
                self.path.replace(self.hidden)
            self._is_shown = False

    def clear(self) -> None:
        """Remove what an agent that was killed has left.

        Raises:
            ConfigurationError: another agent serves there.
            StorageError: something else is there, or the directory cannot be used.
        """
        with explained("use the socket's directory", self.path.parent):
            if not self.path.parent.is_dir():
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
