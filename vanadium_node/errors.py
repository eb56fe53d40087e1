"""Every exception of the project, in one tree, split by who must act.

    VanadiumError
    ├── InputError              whoever called us: a value that is not what it should be
    │   ├── DecodeError         bytes or text that are not the encoding of anything valid
    │   └── UsageError          a command line that makes no sense (exit status 2)
    ├── ConfigurationError      the operator: a configuration file, flag or environment variable
    ├── StorageError            the operator: a file, directory, socket path or database
    │   └── DamagedError        a file that was sound once, and is not what was written
    ├── UnreachableError        the operator or the network: nobody answers there
    ├── KubernetesError         the operator: the Kubernetes API refused or failed
    ├── PeerError               the other end of a connection
    │   ├── ProtocolError       it broke the protocol
    │   └── NotTrustedError     it is not who it should be
    └── CallError               a remote method answered with an error, or a method of ours wants to

Each error is one sentence (what was attempted, on what, why it failed) and a hint (what to do next). None ever holds a
secret, a key or a whole payload. Anything else that travels as an exception is a bug of ours.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

REMOTE_TEXT_LIMIT = 400
"""Characters of a peer's text that may appear in a message of ours: a peer must not fill logs."""


def clip(text: str, limit: int = REMOTE_TEXT_LIMIT) -> str:
    """Return `text` fit for one line of a message: control characters escaped, cut after `limit` characters."""
    head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: limit + 1])
    return head if len(head) <= limit else head[:limit] + "…"


class VanadiumError(Exception):
    """What was attempted, on what and why it failed, with a hint at the next step."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InputError(VanadiumError):
    """A value given by the caller is not what it should be."""


class DecodeError(InputError):
    """Bytes or text that are not the encoding of anything valid."""


class UsageError(InputError):
    """A command line that makes no sense."""


class ConfigurationError(VanadiumError):
    """A configuration file, flag or environment variable is wrong or missing."""


class StorageError(VanadiumError):
    """A file, directory, socket path or database cannot be used."""


class DamagedError(StorageError):
    """A file does not hold what was written to it, or its disk cannot read it: only the right file helps, no other attempt."""


class UnreachableError(VanadiumError):
    """Nobody answers at an address."""


class KubernetesError(VanadiumError):
    """The Kubernetes API refused a request or failed.

    `status` is the HTTP status (0: no answer), `reason` the API's machine-readable reason, such as `NotFound`.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason


class PeerError(VanadiumError):
    """The other end of a connection is at fault."""


class ProtocolError(PeerError):
    """The peer broke the protocol."""


class NotTrustedError(PeerError):
    """The peer is not who it should be."""


class ErrorCode(StrEnum):
    """Codes of errors on the wire."""

    BAD_ARG = "bad-arg"
    UNKNOWN_METHOD = "unknown-method"
    UNKNOWN_OBJECT = "unknown-object"
    NO_ACCESS = "no-access"
    NOT_TRUSTED = "not-trusted"
    EXISTS = "exists"
    NOT_FOUND = "not-found"
    BAD_VERSION = "bad-version"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"


class CallError(VanadiumError):
    """A remote method's error, or one that a method of ours answers with.

    `fields` are small machine-readable details, such as `retry_after_ms` of an overloaded server.
    """

    def __init__(
        self, code: ErrorCode, message: str, *, fields: Mapping[str, str | int] = MappingProxyType({}), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.fields = MappingProxyType(dict(fields))
