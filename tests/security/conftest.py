"""Principals and times that the tests of the security model share."""

from datetime import UTC, datetime

import pytest

from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    """The time of every test."""
    return NOW


@pytest.fixture
async def alice() -> Principal:
    """A principal that blesses itself as alice."""
    return await Principal.create(PrivateKey.generate(), "alice")


@pytest.fixture
async def bob() -> Principal:
    """A principal that blesses itself as bob."""
    return await Principal.create(PrivateKey.generate(), "bob")
