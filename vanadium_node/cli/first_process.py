"""What the first process of a container has to do that others have done for them: the kernel spares it, and gives it orphans."""

import os
import signal
from contextlib import suppress
from typing import Final

FIRST: Final = 1


def end_at_early_signals() -> None:
    """End at a SIGTERM that comes before anybody listens to it: to PID 1 the kernel sends only signals that are listened to."""
    if os.getpid() == FIRST:
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def bury_orphans() -> None:
    """Let nothing stay as a zombie that became a child of PID 1, as what a `kubectl exec` leaves behind does.

    The kernel does it, where SIGCHLD is ignored. Only for programs that never ask how a child of their own ended.
    """
    if os.getpid() == FIRST:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that ended before
                pass
