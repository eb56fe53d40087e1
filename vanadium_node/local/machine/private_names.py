"""Gives a program an /etc/hosts of its own, so that whatever it is written in, it resolves the cluster's names.

    python3 -I -S private_names.py HOSTS PROGRAM [ARGUMENT]...

It enters a mount namespace of its own (within a user namespace, where the user is not root), binds the file HOSTS over
/etc/hosts there, and becomes PROGRAM; nothing else changes, and nobody else sees the change (mount_namespaces(7),
user_namespaces(7)). Run as a script of its own, with the standard library alone, since it precedes every container. Where the
system does not allow it, `is_possible` tells, and containers are started without; programs of this project read VANADIUM_HOSTS.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

NEW_MOUNT_NAMESPACE = 0x00020000
NEW_USER_NAMESPACE = 0x10000000
BIND = 0x1000
RECURSIVE_PRIVATE = 0x4000 | 0x40000
TARGET = "/etc/hosts"
NOT_EXECUTABLE = 126
"""Exit status of shells for a program that cannot be run."""


def command_line(hosts: Path, argv: list[str]) -> list[str]:
    """Return the command that runs `argv` with that file as its /etc/hosts."""
    return [sys.executable, "-I", "-S", str(Path(__file__)), str(hosts), *argv]


def is_possible(hosts: Path) -> bool:
    """Tell whether this system allows it, by trying."""
    if sys.platform != "linux" or not Path(TARGET).is_file():
        return False
    argv = command_line(hosts, [sys.executable, "-I", "-S", "-c", f"print(open({TARGET!r}).read(), end='')"])
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout == hosts.read_text()


def enter(hosts: str) -> None:
    """Bind the file over /etc/hosts for this process alone. Raises OSError where the system does not allow it."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    _check(libc.unshare(NEW_MOUNT_NAMESPACE | (NEW_USER_NAMESPACE if user != 0 else 0)))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _check(libc.mount(b"none", b"/", None, RECURSIVE_PRIVATE, None))
    _check(libc.mount(os.fsencode(hosts), TARGET.encode(), None, BIND, None))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main() -> None:
    """Enter the namespace and become the program."""
    hosts, program, *arguments = sys.argv[1:]
    try:
        enter(hosts)
    except OSError as error:
        sys.exit(f"cannot give the container its own {TARGET}: {error.strerror}")
    try:
        os.execv(program, [program, *arguments])  # noqa: S606 - this is what it is for
    except OSError as error:
        print(f"exec: {program}: {error.strerror}", file=sys.stderr)  # noqa: T201 - the container's own standard error
        sys.exit(NOT_EXECUTABLE)


if __name__ == "__main__":
    main()
