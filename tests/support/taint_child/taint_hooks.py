"""Learning what must stay secret, and where it might show, from inside a process that runs the product's code.

The hooks stand at the few places where private keys and secrets come into being, around the starts of programs and around the
answers with metrics. They are put there from outside, as modules are imported: nothing in the product knows of them. The same
hooks work in the process of the tests and (through `sitecustomize.py`) in every Python program that it starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from stat import S_ISREG
from types import ModuleType
from typing import Any, Protocol

REPORT = "TAINT_REPORT"
"""The variable that names the file to which children report; empty: these children are none of ours."""

FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs every child 5 ms

KEY, SECRET, TOKEN = "private key", "secret", "token of the API"

MAKERS = {
    ("token_bytes", "vanadium_node.secret_store.store"): SECRET,
    ("token_urlsafe", "vanadium_node.local.api.identity"): TOKEN,
}
"""Which functions of `secrets` make, called by which module, what must stay secret. All else they make is public: names, nonces."""


class Report(Protocol):
    """Takes what the hooks learn."""

    def learn(self, kind: str, value: Any) -> None:
        """Take note of a key (an object of the cryptography library) or a secret (bytes or text)."""

    def see(self, place: str, text: bytes) -> None:
        """Take note of a text that is in a place where nothing secret may be."""

    def see_folder(self, folder: str) -> None:
        """Take note of all files in a folder."""


class Hooks:
    """The hooks of one process."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._by_module: dict[str, Callable[[Any], None]] = {
            "vanadium_node.security.keys": self._watch_keys,
            "cryptography.hazmat.primitives.asymmetric.ec": self._watch_curves,
            "secrets": self._watch_secrets,
            "subprocess": self._watch_programs,
            "shutil": self._watch_removals,
            "prometheus_client": self._watch_metrics,
            "vanadium_node.health.pages": self._watch_metrics,
        }

    def install(self) -> None:
        """Hook what is imported already, and the rest as it comes."""
        for name, hook in self._by_module.items():
            if name in sys.modules:
                hook(sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module as the others do, and have it hooked once it is executed."""
        hook = self._by_module.get(name)
        if hook is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                _run_after(spec, hook)
                return spec
        return None

    def _watch_keys(self, module: Any) -> None:
        """Every private key of the product, made or read, is one of these."""
        learn = self.report.learn
        initialize = module.PrivateKey.__init__

        def __init__(self: Any, key: Any) -> None:  # noqa: N807 - it stands in for one
            initialize(self, key)
            learn(KEY, key)

        module.PrivateKey.__init__ = __init__

    def _watch_curves(self, module: Any) -> None:
        """Keys of TLS and of the embedded API are made straight by the library."""
        generate = module.generate_private_key

        def generate_private_key(*args: Any, **named: Any) -> Any:
            key = generate(*args, **named)
            self.report.learn(KEY, key)
            return key

        module.generate_private_key = generate_private_key

    def _watch_secrets(self, module: Any) -> None:
        for name in {name for name, _ in MAKERS}:
            setattr(module, name, self._watched_maker(name, getattr(module, name)))

    def _watched_maker(self, name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any) -> Any:
            value = make(*args)
            kind = MAKERS.get((name, sys._getframe(1).f_globals.get("__name__", "")))
            if kind is not None:
                self.report.learn(kind, value)
            return value

        return made

    def _watch_programs(self, module: Any) -> None:
        """Arguments and environments of the programs that are started; Python programs among them report as well."""
        start = module.Popen.__init__
        see = self.report.see

        def __init__(self: Any, args: Any, *rest: Any, **named: Any) -> None:  # noqa: N807 - it stands in for one
            words = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
            name = program(words)
            see(f"arguments of {name}", b"\0".join(map(os.fsencode, words)))
            environment = named.get("env")
            if environment is not None:
                changed = [os.fsencode(v) for k, v in environment.items() if os.environ.get(k) != v]
                see(f"environment of {name}", b"\0".join(changed))
                named["env"] = reporting(environment)
            start(self, args, *rest, **named)

        module.Popen.__init__ = __init__

    def _watch_removals(self, module: Any) -> None:
        """What is in folders that are removed: logs of pods that ended, and what tests leave."""
        remove = module.rmtree

        def rmtree(path: Any, *rest: Any, **named: Any) -> None:
            self.report.see_folder(os.fsdecode(path))
            remove(path, *rest, **named)

        rmtree.avoids_symlink_attacks = remove.avoids_symlink_attacks  # type: ignore[attr-defined]
        module.rmtree = rmtree

    def _watch_metrics(self, module: Any) -> None:
        generate = module.generate_latest
        if getattr(generate, "is_watched", False):
            return

        def generate_latest(*args: Any, **named: Any) -> Any:
            text = generate(*args, **named)
            self.report.see("metrics", text)
            return text

        generate_latest.is_watched = True  # type: ignore[attr-defined]
        module.generate_latest = generate_latest


def scalar(key: Any) -> bytes:
    """Return the bytes of a private key, as files have them: 32, but for the curves that are not the product's."""
    if hasattr(key, "private_bytes_raw"):
        raw: bytes = key.private_bytes_raw()
        return raw
    number: int = key.private_numbers().private_value
    return number.to_bytes((key.key_size + 7) // 8, "big")


def reporting(environment: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return an environment in which Python programs report to where this one does."""
    added = dict(environment)
    if REPORT in os.environ and REPORT not in added and b"PATH" not in added:
        added[REPORT] = os.environ[REPORT]
        added["PYTHONPATH"] = os.pathsep.join(filter(None, [FOLDER, str(added.get("PYTHONPATH", ""))]))
    return added


def read_file(path: str, largest: int) -> bytes:
    """Return what is in a file; nothing, if it is none, cannot be read or is larger."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            stat = os.fstat(file)
            if not S_ISREG(stat.st_mode) or stat.st_size > largest:
                return b""
            return os.read(file, stat.st_size + 1)
        finally:
            os.close(file)
    except OSError:
        return b""


def program(words: list[Any]) -> str:
    """Return what is started, for people: the program's name and the names of its commands."""
    named = [os.path.basename(os.fsdecode(word)) for word in words[:1]]  # noqa: PTH119 - as above
    if "vanadium_node" in words[1:3]:
        named = ["vanadium-node"]
        words = words[2:]
    commands = [w for w in map(os.fsdecode, words[1:8]) if w.replace("-", "").isalpha() and not w.startswith("-")]
    return " ".join(named + commands)


def _run_after(spec: ModuleSpec, hook: Callable[[Any], None]) -> None:
    """Call a hook with a module after its code has run."""
    execute = spec.loader.exec_module  # type: ignore[union-attr]

    def exec_module(module: ModuleType) -> None:
        execute(module)
        hook(module)

    spec.loader.exec_module = exec_module  # type: ignore[method-assign, union-attr]
