"""The audit log's files: a chain over restarts, rotations and crashes, and every kind of change is found."""

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from disk_faults import unwritable
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.errors import StorageError
from vanadium_node.storage.audit_file import AuditFile, first_number, rotated, verify_file
from vanadium_node.storage.audit_log import open_audit_log
from vanadium_node.storage.chain import BEGINNING, Link, next_line, verify


def log_at(path: Path, *, max_bytes: int = 1 << 20, keep: int = 10) -> AuditFile:
    """Open a log."""
    return AuditFile(path, max_bytes=max_bytes, keep=keep)


def write(path: Path, *words: str, max_bytes: int = 1 << 20, keep: int = 10) -> None:
    """Append an entry for each word, in a run of its own."""
    file = log_at(path, max_bytes=max_bytes, keep=keep)
    for word in words:
        file.append([{"time": "now", "event": word}])
    file.close()


def events(path: Path) -> list[str]:
    """Return what happened, by the log."""
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def lines_of(*words: str) -> list[bytes]:
    """Return the lines for some words."""
    lines, link = [], BEGINNING
    for word in words:
        line, link = next_line(link, {"event": word})
        lines.append(line + b"\n")
    return lines


def test_a_chain_over_restarts(tmp_path: Path) -> None:
    """Each run goes on where the one before ended; the file is private."""
    path = tmp_path / "audit.jsonl"
    write(path, "one", "two")
    write(path, "three")
    assert events(path) == ["one", "two", "three"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = verify_file(path, BEGINNING)
    assert (found.problem, found.lines, found.last and found.last.seq) == ("", 3, 3)


@given(st.integers(0, 4), st.data())
def test_every_changed_byte_is_found(number: int, data: st.DataObject) -> None:
    """In the line that holds it, or, for the end of a line, in that one or the next."""
    lines = lines_of("one", "two", "three", "four", "five")
    line = bytearray(lines[number])
    position = data.draw(st.integers(0, len(line) - 1))
    line[position] ^= data.draw(st.integers(1, 255))
    changed = b"".join([*lines[:number], bytes(line), *lines[number + 1 :]])
    found = verify(changed.splitlines(keepends=True), BEGINNING)
    assert found.problem
    assert found.line in {number + 1, number + 2}


@pytest.mark.parametrize(
    ("change", "line", "problem"),
    [
        (lambda lines: [lines[0], *lines[2:]], 2, "number 3, after number 1"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2, "number 3, after number 1"),
        (lambda lines: [*lines, lines[-1]], 5, "number 4, after number 4"),
        (lambda lines: lines[1:], 1, "number 2, after number 0"),
        (lambda lines: [*lines[:3], lines[3][:-1]], 4, "it has no end"),
        (lambda lines: [*lines_of("one", "forged"), *lines[2:]], 3, "does not continue the line before"),
        (lambda lines: [lines[0], b"\n", *lines[1:]], 2, "not a JSON object"),
        (lambda lines: [b"x" * 100_000 + b"\n"], 1, "longer than"),
    ],
)
def test_the_first_broken_line_is_named(change: Callable[[list[bytes]], list[bytes]], line: int, problem: str) -> None:
    """With what is wrong with it, whatever was removed, moved, repeated, forged or put in."""
    found = verify(change(lines_of("one", "two", "three", "four")), BEGINNING)
    assert found.line == line
    assert problem in found.problem


def test_rotation_goes_on_in_the_chain(tmp_path: Path) -> None:
    """A file is put aside when it is full; the newest of those are kept, and all that is left is one chain."""
    path = tmp_path / "audit.jsonl"
    for number in range(30):
        write(path, f"event {number}", max_bytes=1000, keep=3)
    older = rotated(path)
    assert len(older) == 3
    link: Link | None = None
    for file in [*older, path]:
        assert file.stat().st_size <= 1000
        found = verify_file(file, link)
        assert found.problem == ""
        assert found.first is not None
        assert found.first.seq == first_number(file)
        link = found.last
    assert link is not None
    assert link.seq == 30


@pytest.mark.parametrize("cut", [1, 50, 150])
def test_a_crash_in_mid_line_is_recovered_and_said(tmp_path: Path, cut: int) -> None:
    """The next start removes the unfinished line, which nobody was told was written, and says so in the next one."""
    path = tmp_path / "audit.jsonl"
    write(path, "one", "two")
    os.truncate(path, path.stat().st_size - cut)
    write(path, "three")
    assert events(path) == ["one", "recovered", "three"]
    assert "died in it" in path.read_text()
    assert verify_file(path, BEGINNING).problem == ""


def test_a_crash_in_the_middle_of_a_rotation(tmp_path: Path) -> None:
    """The file was put aside, and the new one not begun, or begun with half a line: the chain goes on."""
    path = tmp_path / "audit.jsonl"
    for left in (None, b"", b'{"seq":3,"ti'):
        write(path, "one", "two")
        last = verify_file(path).last
        path.rename(path.with_name(f"audit-{first_number(path):012}.jsonl"))
        if left is not None:
            path.write_bytes(left)
        write(path, "three")
        assert verify_file(path, last).problem == ""


def test_a_damaged_log_is_set_aside(tmp_path: Path) -> None:
    """What is left of it is evidence; the new one says where the old one went and goes on after its last good line."""
    path = tmp_path / "audit.jsonl"
    write(path, "one", "two", "three")
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    write(path, "four")
    [aside] = tmp_path.glob("audit-damaged-*")
    assert aside.read_bytes() == data
    assert events(path) == ["recovered", "four"]
    assert aside.name in path.read_text()
    good = verify_file(aside)
    assert (good.lines, good.line) == (2, 3)
    assert verify_file(path, good.last).problem == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.rename(path.with_name("moved")),
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("moved")).with_name(path.name).touch(),
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, path.stat().st_size - 30),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
    ],
    ids=["moved", "removed", "moved and made", "emptied", "cut", "added to"],
)
@pytest.mark.parametrize("max_bytes", [1 << 20, 800])
def test_a_log_that_somebody_else_rotates_goes_on(
    tmp_path: Path, change: Callable[[Path], object], max_bytes: int
) -> None:
    """Under the program that writes it: the next line is where people look for it, after the last one that was written."""
    path = tmp_path / "audit.jsonl"
    file = log_at(path, max_bytes=max_bytes)
    for word in ("one", "two"):
        file.append([{"event": word}])
    last = file.last
    change(path)
    left = sorted(each.read_bytes() for each in tmp_path.iterdir())
    for word in ("three", "four"):
        file.append([{"event": word}])
    file.close()
    write(path, "five", max_bytes=max_bytes)
    files = [*rotated(path), path]
    assert [event for each in files for event in events(each)] == ["recovered", "three", "four", "five"]
    assert "by somebody else after line 2" in files[0].read_text()
    for each in files:
        found = verify_file(each, last)
        assert found.problem == ""
        assert found.last is not None
        last = found.last
    kept = [each.read_bytes() for each in tmp_path.iterdir() if each not in files]
    assert sorted(kept) == [each for each in left if each], "what is left of it is evidence"


def test_a_log_whose_folder_is_gone_for_a_while_goes_on(tmp_path: Path) -> None:
    """The numbers too, though nothing is left that tells them."""
    path = tmp_path / "log" / "audit.jsonl"
    path.parent.mkdir()
    file = log_at(path)
    file.append([{"event": "one"}])
    last = file.last
    path.parent.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(StorageError, match=r"cannot write the audit log.*check the path"):
            file.append([{"event": "lost"}])
    path.parent.mkdir()
    file.append([{"event": "two"}])
    file.close()
    assert events(path) == ["recovered", "two"]
    assert verify_file(path, last).problem == ""


def test_a_failed_append_leaves_nothing(tmp_path: Path) -> None:
    """Neither half a line nor a gap in the numbers: the next one goes on as if it had not been tried."""
    path = tmp_path / "audit.jsonl"
    file = log_at(path)
    file.append([{"event": "one"}])
    with unwritable(path), pytest.raises(StorageError, match=f"cannot write the audit log '{path}'"):
        file.append([{"event": "lost"}])
    file.append([{"event": "two"}])
    file.close()
    assert events(path) == ["one", "two"]
    assert verify_file(path, BEGINNING).problem == ""


async def test_many_entries_share_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand at once cost few flushes; each waits until it is durable."""
    flushes: list[int] = []
    flush = os.fsync

    def counted(descriptor: int) -> None:
        flushes.append(descriptor)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    path = tmp_path / "audit.jsonl"
    async with open_audit_log(path, max_bytes=1 << 20, keep=3, now=lambda: datetime.now(UTC)) as log:
        async with trio.open_nursery() as nursery:
            for entry in [log.put(event=str(number)) for number in range(1000)]:
                nursery.start_soon(entry.written)
        assert log.last.seq == 1000
    assert len(flushes) < 20
    assert verify_file(path, BEGINNING).lines == 1000
