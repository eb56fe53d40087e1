"""Permissions in a file that people edit while the server runs."""

import logging
from pathlib import Path
from typing import Final, Self

from vanadium_node.errors import ConfigurationError, InputError, StorageError
from vanadium_node.security.access import MAX_TEXT_BYTES, Permissions
from vanadium_node.storage.watched import WatchedFile

_log: Final = logging.getLogger(__name__)


class PermissionsFile:
    """The permissions in a file, as it is now: `permissions_authorizer(PermissionsFile(path))`.

    While the file is missing, unreadable or wrong there are no permissions, so that nobody is allowed anything; the log tells why,
    once, and when they are there again.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path, Permissions.parse, max_bytes=MAX_TEXT_BYTES)
        self._trouble = ""

    def checked(self) -> Self:
        """Return the same, read once: what is wrong from the beginning should end a program, not close it until it is right.

        Raises:
            ConfigurationError: the file cannot be read, or holds no permissions.
        """
        self._read()
        return self

    def __call__(self) -> Permissions:
        """Return the permissions.

        Raises:
            ConfigurationError: the file cannot be read, or holds no permissions.
        """
        try:
            permissions = self._read()
        except ConfigurationError as error:
            self._note(error.message)
            raise
        self._note("")
        return permissions

    def _read(self) -> Permissions:
        try:
            return self._file.value()
        except InputError as error:
            why = f"the permissions file '{self._file.path}': {error.message}"
            raise ConfigurationError(why, hint=error.hint) from error
        except StorageError as error:
            raise ConfigurationError(error.message, hint=error.hint) from error

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            _log.error("nobody is allowed anything: %s", trouble)
        elif self._trouble and not trouble:
            _log.info("the permissions in '%s' are good again", self._file.path)
        self._trouble = trouble
