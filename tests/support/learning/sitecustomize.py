"""Has a Python process write down each private key and secret that this project's code makes or reads in it.

With this folder in PYTHONPATH, to a file of its own in the folder TAINTS_FOLDER, which only tests read. The programs know nothing of it.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = os.environ.get("TAINTS_FOLDER", "")
Learn = Callable[[str, bytes], None]


def write_down(kind: str, value: bytes) -> None:
    """Append one to this process's file; a container that may write nowhere tells nothing."""
    with suppress(OSError), (Path(FOLDER) / str(os.getpid())).open("a") as file:
        file.write(f"{kind} {value.hex()}\n")


def watch_keys(module: ModuleType, learn: Learn) -> None:
    """Learn of each `PrivateKey`."""
    original = module.PrivateKey.__init__

    def init(self: Any, key: Any) -> None:
        original(self, key)
        numbers = getattr(key, "private_numbers", None)
        learn("key", numbers().private_value.to_bytes(32, "big") if numbers else key.private_bytes_raw())

    module.PrivateKey.__init__ = init


def watch_secrets(module: ModuleType, learn: Learn) -> None:
    """Learn of each secret of an application."""
    original = module.fresh_secret

    def fresh_secret() -> str:
        secret: str = original()
        learn("secret", module.cbor.from_text(secret, max_bytes=module.SECRET_BYTES))
        return secret

    setattr(module, "fresh_secret", fresh_secret)  # noqa: B010 - a module has any attributes


WATCHED = {"vanadium_node.security.keys": watch_keys, "vanadium_node.secret_store.store": watch_secrets}


class Watcher(importlib.abc.MetaPathFinder):
    """Has the two modules watched as soon as they are imported."""

    def __init__(self, learn: Learn) -> None:
        self._learn = learn

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as others would, and wrap how it is executed."""
        watch = WATCHED.get(name)
        spec = None if watch is None else importlib.machinery.PathFinder.find_spec(name, path, target)
        if watch is None or spec is None or spec.loader is None:
            return None
        execute, learn = spec.loader.exec_module, self._learn

        def exec_module(module: ModuleType) -> None:
            execute(module)
            watch(module, learn)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FOLDER:
    sys.meta_path.insert(0, Watcher(write_down))
