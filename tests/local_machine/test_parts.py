"""The parts that need no machine: arithmetic of updates, paths, variables, quantities, files, logs, addresses."""

import socket
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.local.machine import images, watchdog
from vanadium_node.local.machine.addresses import LOOPBACK, Addresses
from vanadium_node.local.machine.backoff import BackOff
from vanadium_node.local.machine.container_logs import ContainerLog
from vanadium_node.local.machine.files import File, write_together
from vanadium_node.local.machine.mounts import Mounts
from vanadium_node.local.machine.quantities import in_units_of
from vanadium_node.local.machine.rolling import Bounds, Share, grown, portion, scaled, shrunk
from vanadium_node.local.machine.variables import expanded

SHARE = st.integers(0, 8).flatmap(
    lambda replicas: st.builds(Share, replicas=st.just(replicas), available=st.integers(0, replicas))
)
NOW = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)


@given(
    st.integers(0, 8),
    st.builds(Bounds, surge=st.integers(0, 3), unavailable=st.integers(0, 3)),
    SHARE,
    st.lists(SHARE, max_size=3),
)
def test_a_step_of_an_update_keeps_its_promises(wanted: int, bounds: Bounds, new: Share, old: list[Share]) -> None:
    """Growing stays below the surge; shrinking never takes an available pod that is still needed."""
    total = new.replicas + sum(share.replicas for share in old)
    after = grown(wanted, bounds, new, old)
    if after > new.replicas:
        assert total - new.replicas + after <= wanted + bounds.surge
        assert after <= wanted
    kept = shrunk(wanted, bounds, new, old)
    available = new.available + sum(share.available for share in old)
    taken = sum(max(0, share.available - left) for share, left in zip(old, kept, strict=True))
    assert all(0 <= left <= share.replicas for share, left in zip(old, kept, strict=True))
    assert taken == 0 or available - taken >= wanted - bounds.unavailable


@given(st.integers(0, 50), st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_a_new_total_is_spread_whole(total: int, shares: list[int]) -> None:
    """Nothing is lost in rounding, and nobody gets less than nothing."""
    spread = scaled(total, shares)
    assert sum(spread) == total
    assert min(spread) >= 0


@pytest.mark.parametrize(
    ("value", "total", "up", "expected"),
    [("25%", 4, True, 1), ("25%", 1, True, 1), ("25%", 1, False, 0), (3, 10, True, 3), (None, 5, True, 0)],
)
def test_portions(value: int | str | None, total: int, up: bool, expected: int) -> None:
    """Percentages are rounded as asked, numbers stay."""
    assert portion(value, total, up=up) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", "/r/1"),
        ("/data/", "/r/1/"),
        ("--dir=/data/x", "--dir=/r/1/x"),
        ("unix:/data/s.sock", "unix:/r/1/s.sock"),
        ("file:///data/x", "file:///r/1/x"),
        ("cat '/data/a' /data/sub/b", "cat '/r/1/a' /r/2/b"),
        ("/database /my/data data /data.bak /data-2", "/database /my/data data /data.bak /data-2"),
        ("/file", "/r/3/key"),
    ],
)
def test_mount_paths_are_replaced_at_their_boundaries(text: str, expected: str) -> None:
    """Paths are found as paths of their own or beginnings of paths, the longest first."""
    container = {
        "volumeMounts": [
            {"name": "a", "mountPath": "/data"},
            {"name": "b", "mountPath": "/data/sub/"},
            {"name": "c", "mountPath": "/file", "subPath": "key"},
        ]
    }
    mounts = Mounts.from_container(container, {"a": Path("/r/1"), "b": Path("/r/2"), "c": Path("/r/3")})
    assert mounts.replaced(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$A", "$A"), ("x$(A)y$(A)", "x1y1"), ("$", "$"), ("$$", "$")],
)
def test_variables_are_expanded(text: str, expected: str) -> None:
    """Known names are replaced, unknown ones stay, two dollars are one."""
    assert expanded(text, {"A": "1"}) == expected


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [("64Mi", "1", "67108864"), ("64Mi", "1Mi", "64"), ("500m", "1", "1"), ("500m", "1m", "500"), ("2k", "", "2000")],
)
def test_quantities(text: str, unit: str, expected: str) -> None:
    """Whole units, rounded up."""
    assert in_units_of(text, unit) == expected
    assert in_units_of("many", unit) is None


def test_image_names() -> None:
    """Names are checked for form, and only hosts that cannot exist are refused."""
    for good in ("a", "a/b:1", "gcr.io/p/x:tag", "localhost:5000/x", "x@sha256:" + "0" * 64):
        assert images.is_valid_name(good)
        assert images.refusal(good) is None
    for bad in ("", "A b", "a:", "-x", "a//b"):
        assert not images.is_valid_name(bad)
    assert images.refusal("r.invalid/x") is not None
    assert images.refusal("r.invalid:5000/x") is not None
    assert images.refusal("invalid") is None


def test_back_off_grows_and_is_forgotten() -> None:
    """Ten seconds, doubled up to five minutes; a long run starts anew."""
    back_off = BackOff()
    assert [back_off.after(1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert back_off.after(601) == 0


def test_files_change_together(tmp_path: Path) -> None:
    """Names are links into one directory that is replaced as a whole; unchanged content is left alone."""
    place = tmp_path / "v"
    write_together(place, {"a": File(b"1", 0o644), "deep/b": File(b"2", 0o400)})
    assert ((place / "a").read_bytes(), (place / "deep/b").read_bytes()) == (b"1", b"2")
    assert stat.S_IMODE((place / "a").stat().st_mode) == 0o600
    first = (place / "..data").readlink()
    write_together(place, {"a": File(b"1", 0o644), "deep/b": File(b"2", 0o400)})
    assert (place / "..data").readlink() == first
    write_together(place, {"c": File(b"3", 0o644)})
    assert sorted(p.name for p in place.iterdir() if not p.name.startswith("..")) == ["c"]
    assert len(list(place.glob("..[0-9]*"))) == 1


def test_files_stay_inside_their_volume(tmp_path: Path) -> None:
    """A path that would lead out of the volume does not."""
    write_together(tmp_path / "v", {"../../evil": File(b"x", 0o644)})
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path.parent / "evil").exists()


async def test_a_log_keeps_what_was_printed(tmp_path: Path) -> None:
    """Bytes come back as they were, in whatever pieces they came."""
    log = ContainerLog(tmp_path / "log", lambda: NOW)
    printed = b"one\r\ntwo \xff\n\n" + b"x" * 40_000 + b"\nlast"
    for start in range(0, len(printed), 1000):
        log.write(printed[start : start + 1000])
    log.close()
    assert await _read(log) == printed
    assert await _read(log, tail_lines=1) == b"last"
    assert (await _read(log, tail_lines=2)) == b"x" * 40_000 + b"\nlast"
    assert await _read(log, tail_lines=0) == b""
    assert (await _read(log, timestamps=True)).splitlines()[0] == b"2026-11-23T10:00:00.123456000Z one"
    assert await _read(log, since=datetime(2027, 1, 1, tzinfo=UTC)) == b""


def test_a_log_does_not_grow_without_end(tmp_path: Path) -> None:
    """The newest output is kept, in at most two files."""
    log = ContainerLog(tmp_path / "log", lambda: NOW, max_bytes=1000)
    for number in range(200):
        log.write(f"line {number}\n".encode())
    log.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000
    assert log.last_lines(1, 1000) == "line 199"


async def test_a_slow_reader_loses_only_what_is_gone(tmp_path: Path) -> None:
    """After several rotations a follower goes on with the oldest line that is kept, never inside of one."""
    log = ContainerLog(tmp_path / "log", lambda: NOW, max_bytes=1000)
    log.write(b"line 0\n")
    pieces = log.read(follow=True, tail_lines=None, timestamps=False, since=None)
    seen = await anext(pieces)
    for number in range(1, 200):
        log.write(f"line {number} of many\n".encode())
    log.close()
    kept = await _read(log)
    async for piece in pieces:
        seen += piece
    assert seen == b"line 0\n" + kept


def test_addresses_are_unique_and_given_again_late() -> None:
    """Two clusters share no address; one that was given back waits at the end of the queue."""
    with Addresses.claimed() as ours, Addresses.claimed() as theirs:
        mine = [ours.take() for _ in range(300)]
        assert len({*mine, *(theirs.take() for _ in range(300))}) == 600
        ours.give_back(mine[0])
        assert ours.take() != mine[0]


def test_without_addresses_of_its_own_everybody_gets_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system binds nothing but 127.0.0.1, that is what there is."""

    def refuse(*_: object) -> None:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "socket", lambda *_: type("S", (), {"bind": refuse, "close": lambda _: None})())
    with Addresses.claimed() as addresses:
        assert [addresses.take(), addresses.take()] == [LOOPBACK, LOOPBACK]


def test_the_watchdog_knows_what_is_left() -> None:
    """Groups that began and have not ended."""
    assert watchdog.watch(["+1\n", "+2\n", "-1\n", "+3\n", "-9\n"]) == {2, 3}


async def _read(
    log: ContainerLog, *, tail_lines: int | None = None, timestamps: bool = False, since: datetime | None = None
) -> bytes:
    pieces = log.read(follow=False, tail_lines=tail_lines, timestamps=timestamps, since=since)
    return b"".join([piece async for piece in pieces])
