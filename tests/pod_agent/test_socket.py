"""The socket's path: shown, hidden, cleared of leftovers, never taken from somebody else."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_parties import short_directory
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.errors import ConfigurationError, StorageError
from vanadium_node.pod_agent.socket import PodSocket
from vanadium_node.storage.hidden import hidden_path


@pytest.fixture
def path() -> Iterator[Path]:
    """A path for a socket."""
    with short_directory() as folder:
        yield folder / "agent.sock"


def test_showing_and_hiding(path: Path) -> None:
    """Both may be repeated, and whoever is connected stays connected."""
    pod_socket = PodSocket(path)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(pod_socket.hidden))
        server.listen()
        for _ in range(2):
            pod_socket.show()
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        client.connect(str(path))
        served, _ = server.accept()
        for _ in range(2):
            pod_socket.hide()
        assert not path.exists()
        client.sendall(b"still there")
        assert served.recv(11) == b"still there"
        served.close()


def test_hiding_what_somebody_removed(path: Path) -> None:
    """Whoever removes the socket's file does not make the agent fail at its end."""
    pod_socket = PodSocket(path)
    pod_socket.hidden.touch()
    pod_socket.show()
    path.unlink()
    pod_socket.hide()
    assert not pod_socket.is_shown


def test_what_others_did_to_the_socket_is_noticed(path: Path) -> None:
    """Removed or replaced, it leads nobody here any more; what has taken its place is not hidden."""
    for is_replaced in (False, True):
        pod_socket = PodSocket(path)
        pod_socket.hidden.touch()
        pod_socket.check()
        pod_socket.show()
        pod_socket.check()
        other = path.with_name("other")
        other.touch()
        path.unlink()
        if is_replaced:
            other.rename(path)
        with pytest.raises(StorageError, match=f"'{path}' was removed or replaced"):
            pod_socket.check()
        pod_socket.hide()
        pod_socket.check()
        assert path.exists() is is_replaced


def test_a_leftover_of_a_killed_agent_is_removed(path: Path) -> None:
    """Nobody answers there: it promises an identity that does not exist."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    PodSocket(path).clear()
    assert not path.exists()
    PodSocket(path).clear()


def test_another_agents_socket_is_left_alone(path: Path) -> None:
    """Two agents on one path would take each other's clients."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(ConfigurationError, match=f"another agent serves '{path}'"):
            PodSocket(path).clear()
    assert path.exists()


def test_something_else_is_left_alone(path: Path) -> None:
    """A file that is no socket is somebody's; a directory that is not there is named."""
    path.write_text("precious")
    with pytest.raises(StorageError, match="is there already, and is no socket"):
        PodSocket(path).clear()
    assert path.read_text() == "precious"
    with pytest.raises(StorageError, match=f"{path.parent / 'none'}': no such file or directory"):
        PodSocket(path.parent / "none" / "s").clear()
    with pytest.raises(StorageError, match=f"{path}': not a directory"):
        PodSocket(path / "s").clear()


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_the_hidden_name(name: str) -> None:
    """It is another one, no longer, and a name at all."""
    if name in (".", ".."):
        return
    hidden = hidden_path(Path(name)).name
    assert hidden not in (name, ".", "..", "")
    assert len(hidden.encode()) <= len(name.encode())
    assert "/" not in hidden
