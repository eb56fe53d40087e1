"""Who a program is: what its environment and flags name, and what it is told when they name nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent_parties import blessed, default_of, new_root, short_directory

from vanadium_node.agent import open_principal
from vanadium_node.agent.service import AgentService
from vanadium_node.errors import ConfigurationError, InputError, StorageError, UnreachableError
from vanadium_node.rpc import Service, serve
from vanadium_node.security.authorization import everyone
from vanadium_node.security.keys import PrivateKey
from vanadium_node.storage.credentials import CredentialsDirectory


async def test_nothing_is_named() -> None:
    """The sentence names both variables and how to make a principal."""
    with pytest.raises(ConfigurationError, match=r"V23_AGENT_PATH nor V23_CREDENTIALS.*principal create"):
        async with open_principal(environ={}):
            pass


async def test_a_directory_given_wins_over_one_of_the_environment(tmp_path: Path) -> None:
    """`--credentials` before `V23_CREDENTIALS`; an empty variable is none."""
    for name in ("a", "b"):
        await CredentialsDirectory(tmp_path / name).create(PrivateKey.generate(), name)
    environ = {"V23_CREDENTIALS": str(tmp_path / "a"), "V23_AGENT_PATH": ""}
    async with open_principal(environ=environ) as principal:
        assert default_of(principal).names == ("a",)
    async with open_principal(credentials=tmp_path / "b", environ=environ) as principal:
        assert default_of(principal).names == ("b",)


async def test_the_agent_wins_over_both(tmp_path: Path) -> None:
    """In a pod, the pod agent's principal is the program's, whatever else it is told."""
    await CredentialsDirectory(tmp_path / "a").create(PrivateKey.generate(), "a")
    replica = await blessed(await new_root(), "replica")
    with short_directory() as folder:
        async with serve(AgentService(replica, immutable=True), None, listen=[f"unix:{folder / 's'}"]):
            environ = {"V23_CREDENTIALS": str(tmp_path / "a"), "V23_AGENT_PATH": str(folder / "s")}
            async with open_principal(credentials=tmp_path / "a", environ=environ) as principal:
                assert default_of(principal).names == ("root:replica",)


async def test_no_agent_in_time() -> None:
    """Whoever does not want to wait for ever is told which socket nobody serves."""
    with short_directory() as folder, pytest.raises(UnreachableError, match=f"on '{folder / 's'}' within 0.2 s"):
        async with open_principal(environ={"V23_AGENT_PATH": str(folder / "s")}, timeout=0.2):
            pass


async def test_a_socket_that_this_user_may_not_open(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever waits is told that waiting alone will not help, in the log at once and in the error at the end."""
    replica = await blessed(await new_root(), "replica")
    with short_directory() as folder:
        path = folder / "s"
        async with serve(AgentService(replica, immutable=True), None, listen=[f"unix:{path}"], unix_mode=0):
            with as_nobody(), pytest.raises(UnreachableError, match=r"may not open it.*fsGroup.*socket-mode"):
                async with open_principal(environ={"V23_AGENT_PATH": str(path)}, timeout=0.2):
                    pass
    assert caplog.text.count(f"'{path}' does not serve this program yet: user ") == 1


async def test_a_socket_of_something_else(caplog: pytest.LogCaptureFixture) -> None:
    """What is no agent is named as what it is; an agent that is just not there is waited for without a word."""
    with short_directory() as folder:
        environ = {"V23_AGENT_PATH": str(folder / "s")}
        with pytest.raises(UnreachableError, match="is the agent running"):
            async with open_principal(environ=environ, timeout=0.1):
                pass
        assert not caplog.text
        async with serve(Service(), None, listen=[f"unix:{folder / 's'}"], authorizer=everyone):
            with pytest.raises(UnreachableError, match="there is no method 'NotifyWhenChanged'"):
                async with open_principal(environ=environ, timeout=0.2):
                    pass
    assert caplog.text.count("does not serve this program yet: ") == 1


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user to whom permissions apply, if this one is root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if before == 0:
            os.seteuid(0)


async def test_a_socket_path_too_long_is_no_reason_to_wait() -> None:
    """It is refused at once, with its length and the limit."""
    with pytest.raises(StorageError, match="is 121 bytes long; unix sockets allow 107"):
        async with open_principal(environ={"V23_AGENT_PATH": "/" + "x" * 120}):
            pass


async def test_an_error_of_the_caller_is_not_wrapped() -> None:
    """Whoever acts as an agent's principal catches errors as if there were no task behind it."""
    replica = await blessed(await new_root(), "replica")
    with short_directory() as folder:
        async with serve(AgentService(replica, immutable=True), None, listen=[f"unix:{folder / 's'}"]):
            with pytest.raises(InputError):
                async with open_principal(environ={"V23_AGENT_PATH": str(folder / "s")}):
                    raise InputError("of the caller")
