"""The seam between the API and the machine that runs pods: where a container's output comes from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol


class PodLogs(Protocol):
    """Gives out what containers wrote."""

    def read_logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
        since_seconds: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield a container's output, in pieces of any size; with `follow`, until the container has ended.

        Raises:
            ApiError: there is nothing to read, because the container has not started or has no previous run (400).
        """
        ...
