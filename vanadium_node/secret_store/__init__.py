"""What a secret means: a random key that stands for the blessings of an application."""

from vanadium_node.secret_store.known import KnownSecret, key_of_secret
from vanadium_node.secret_store.records import Record
from vanadium_node.secret_store.store import (
    Criteria,
    SecretStore,
    StoredSecret,
    fresh_secret,
    is_secret,
    open_secret_store,
    secret_id,
)

__all__ = [
    "Criteria",
    "KnownSecret",
    "Record",
    "SecretStore",
    "StoredSecret",
    "fresh_secret",
    "is_secret",
    "key_of_secret",
    "open_secret_store",
    "secret_id",
]
