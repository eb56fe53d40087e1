"""A file that is read again when it changes."""

import os
from pathlib import Path

import pytest

from vanadium_node.errors import InputError, StorageError
from vanadium_node.storage.watched import WatchedFile


def number(text: str) -> int:
    """Read a number."""
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"'{text}' is no number") from error


def test_the_value_is_that_of_the_file_now(tmp_path: Path) -> None:
    """Written over, and replaced by another file, even one of the same size and time."""
    path = tmp_path / "n"
    path.write_text("1")
    watched = WatchedFile(path, number, max_bytes=10)
    assert watched.value() == 1
    path.write_text("22")
    assert watched.value() == 22
    stat = path.stat()
    other = tmp_path / "other"
    other.write_text("33")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    assert watched.value() == 33


def test_it_is_parsed_once_for_each_content(tmp_path: Path) -> None:
    """A look at an unchanged file does not read it."""
    path = tmp_path / "n"
    path.write_text("1")
    parsed: list[str] = []

    def parse(text: str) -> str:
        parsed.append(text)
        return text

    watched = WatchedFile(path, parse, max_bytes=10)
    assert [watched.value() for _ in range(3)] == ["1"] * 3
    assert parsed == ["1"]


def test_a_file_that_is_gone_or_broken_gives_nothing(tmp_path: Path) -> None:
    """Not even the value from before; when it is well again, so is the value."""
    path = tmp_path / "n"
    path.write_text("1")
    watched = WatchedFile(path, number, max_bytes=10)
    assert watched.value() == 1
    path.write_text("one")
    for _ in range(2):
        with pytest.raises(InputError, match="no number"):
            watched.value()
    path.unlink()
    with pytest.raises(StorageError, match="no such file"):
        watched.value()
    path.write_text("12345678901")
    with pytest.raises(StorageError, match="longer than"):
        watched.value()
    path.write_text("2")
    assert watched.value() == 2
