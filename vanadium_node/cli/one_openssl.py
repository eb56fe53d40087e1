"""One OpenSSL in a process instead of two: what runs in every pod shall not hold the system's beside cryptography's own.

trio imports `ssl`, and whoever hashes imports `hashlib`; both load the system's OpenSSL, 5 MB that nobody here uses, since
TLS and keys are pyOpenSSL's and cryptography's. Python has its own SHA-256 for builds without OpenSSL.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Final

_MODULES: Final[dict[str, ModuleType | None]] = sys.modules  # type: ignore[assignment] # None: importing it fails


class _LazySsl(ModuleType):
    """Stands where `ssl` is imported; the first use of anything in it imports the real one."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if _MODULES.get("ssl") is self:
            del _MODULES["ssl"]
        return getattr(import_module("ssl"), name)


def avoid_second_openssl() -> None:
    """Keep the system's OpenSSL out of this process until it is needed; nothing happens where it is in already."""
    if "ssl" not in sys.modules and "hashlib" not in sys.modules:
        _MODULES["_hashlib"] = None
        _MODULES["ssl"] = _LazySsl("ssl")
