"""A program in something like a container: PID 1 of a namespace of its own, user 65532, a read-only root, no HOME, no place for
temporary files. Only its folder, a tmpfs, can be written to.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

USER = 65532
UNSHARE = ("unshare", "--fork", "--pid", "--mount", "--mount-proc", "--kill-child")
ROOT = Path(__file__).parents[2]


def why_not() -> str:
    """Return why programs cannot be contained here; empty where they can."""
    if os.geteuid() != 0:
        return "only root can make namespaces and mount"
    missing = [name for name in ("unshare", "nsenter", "setpriv", "mount") if shutil.which(name) is None]
    if missing:
        return f"there is no {', '.join(missing)} here"
    tried = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"no namespaces can be made here: {tried.stderr.decode().strip()}"


def contained(folder: Path) -> tuple[str, ...]:
    """Return what to put before a program's command line; `folder`, an empty one, is what it can write to."""
    return (*UNSHARE, sys.executable, __file__, str(folder))


def first_process(unshare: int) -> int:
    """Return the outer number of the first process in a namespace, by that of its `unshare`."""
    return int(Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()[0])


def orphans_of(first: int) -> set[int]:
    """Return the children of a namespace's first process, dead ones included."""
    return set(map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split()))


def main(folder: str, command: Sequence[str]) -> None:
    """Arrange the mounts, leave all rights behind, and become the command."""
    mount("--make-rprivate", "/")
    make_reachable([sys.base_prefix, sys.prefix, str(ROOT)])
    mount("-t", "tmpfs", "-o", f"mode=0700,uid={USER},gid={USER}", "none", folder)
    for place in mount_points():
        if place not in (folder, "/proc"):
            mount("-o", "remount,bind,ro", place)
    os.chdir(folder)
    os.environ.pop("HOME", None)
    rights = ("--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
    os.execvp("setpriv", ["setpriv", f"--reuid={USER}", f"--regid={USER}", *rights, *command])  # noqa: S606 - that is the point


def make_reachable(paths: Sequence[str]) -> None:
    """Put what others may not get at, such as a Python in root's home, behind folders that they may search."""
    closed = {each for path in paths for each in Path(path).parents if not each.stat().st_mode & 0o001}
    for number, outer in enumerate(sorted(each for each in closed if not closed & set(each.parents))):
        inner = [path for path in dict.fromkeys(paths) if Path(path).is_relative_to(outer)]
        held = [(path, os.open(path, os.O_PATH)) for path in inner]
        mount("-t", "tmpfs", "-o", "mode=0755", f"reachable-{number}", str(outer))
        for path, handle in held:
            Path(path).mkdir(parents=True, exist_ok=True)
            mount("--no-canonicalize", "--bind", f"/proc/self/fd/{handle}", path, keep=handle)


def mount_points() -> Iterator[str]:
    """Yield what is mounted and can be reached, once each."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    for place in dict.fromkeys(line.split()[1] for line in lines):
        if os.path.ismount(place) and not os.statvfs(place).f_flag & os.ST_RDONLY:
            yield place


def mount(*arguments: str, keep: int | None = None) -> None:
    """Mount something."""
    subprocess.run(["mount", *arguments], check=True, pass_fds=() if keep is None else (keep,))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
