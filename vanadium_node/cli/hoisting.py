"""Options of a group that may also stand after the command, as kubectl's users write them: `status -n shop`."""

from __future__ import annotations

from typing import Final

import click

PASSING_ON: Final = "kubectl"
"""The command to which everything after its name belongs."""

WITH_VALUE: Final = frozenset(
    {
        "-n",
        "--namespace",
        "--context",
        "--kubeconfig",
        "--config",
        "--credentials",
        "--v23.credentials",
        "--cluster-agent-address",
    }
)
FLAGS: Final = frozenset({"--local", "--no-headers"})


class HoistingGroup(click.Group):
    """A group whose options that say which cluster is meant may follow the command; no command has one of the same name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Bring the group's options before the command, then parse as usual."""
        return super().parse_args(ctx, hoisted(args))


def hoisted(args: list[str]) -> list[str]:
    """Return the arguments with those options first; what follows `--` or is for kubectl stays where it is."""
    ours: list[str] = []
    others: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word in FLAGS or word.partition("=")[0] in WITH_VALUE - {word}:
            ours.append(word)
        elif word in WITH_VALUE:
            ours += [word, *rest[:1]]
            del rest[:1]
        else:
            others.append(word)
            if word in {"--", PASSING_ON}:
                others += rest
                break
    return ours + others
