"""Pairs of connections, and principals that can show themselves on them."""

import pytest
import trio
from connection_pair import ConnectionPair, pair_of

from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.handshake import Role


@pytest.fixture(scope="session")
def alice() -> Principal:
    """A principal that goes by the name alice."""
    return trio.run(Principal.create, PrivateKey.generate(), "alice")


@pytest.fixture(scope="session")
def bob() -> Principal:
    """A principal that goes by the name bob."""
    return trio.run(Principal.create, PrivateKey.generate(), "bob")


@pytest.fixture(params=[1, 7, 1 << 30], ids=["byte by byte", "in sevens", "at once"])
def pair(request: pytest.FixtureRequest) -> ConnectionPair:
    """A pair whose bytes come in pieces of several sizes."""
    return pair_of(step=request.param)


@pytest.fixture
def strangers() -> ConnectionPair:
    """A pair before its handshake."""
    return ConnectionPair(Connection(Role.CLIENT), Connection(Role.SERVER))
