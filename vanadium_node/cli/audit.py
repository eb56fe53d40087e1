"""`vanadium-node audit`: check the audit log of a cluster agent."""

from pathlib import Path

import click

from vanadium_node.cli.output import emit, emit_json, note
from vanadium_node.errors import StorageError
from vanadium_node.storage.audit_file import first_number, verify_file
from vanadium_node.storage.chain import Link, Verdict


@click.group()
def command() -> None:
    """Check the audit log that a cluster agent keeps: a chain of JSON lines, audit.jsonl in its directory."""


@command.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "is_json", is_flag=True, help="Print what was found as JSON.")
def verify(files: tuple[Path, ...], is_json: bool) -> None:
    """Tell whether lines were changed, removed or put in: the first broken line, and why. Exit status 1 if there is one.

    Give all files of a log, in any order. Lines cut off at the end leave no trace: compare the last hash with the one that
    the cluster agent's own log says when it starts.
    """
    found: list[tuple[Path, Verdict]] = []
    last: Link | None = None
    for file in sorted(files, key=first_number):
        verdict = verify_file(file, last)
        found.append((file, verdict))
        last = verdict.last
        if verdict.problem:
            break
    if is_json:
        emit_json([to_json(file, verdict) for file, verdict in found])
    else:
        for file, verdict in found:
            emit(describe(file, verdict))
    file, verdict = found[-1]
    if verdict.problem:
        raise StorageError(
            f"the audit log is broken in line {verdict.line} of '{file}': {verdict.problem}",
            hint="what is before that line is as it was written",
        )
    first = next((verdict.first for _, verdict in found if verdict.first is not None), None)
    if first is not None and first.seq > 1:
        note(f"What was before line {first.seq} is not in these files.")


def describe(file: Path, verdict: Verdict) -> str:
    """Return one line for people."""
    if verdict.first is None or verdict.last is None or not verdict.lines:
        return f"{file}: no good line"
    span = f"{verdict.lines} good lines, {verdict.first.seq} to {verdict.last.seq}"
    return f"{file}: {span}, last hash {verdict.last.hash}"


def to_json(file: Path, verdict: Verdict) -> dict[str, object]:
    """Return what was found in a file, for machines."""
    return {
        "file": str(file),
        "goodLines": verdict.lines,
        "first": None if verdict.first is None else verdict.first.seq,
        "last": None if verdict.last is None else verdict.last.seq,
        "lastHash": None if verdict.last is None else verdict.last.hash,
        "brokenLine": verdict.line or None,
        "problem": verdict.problem or None,
    }
