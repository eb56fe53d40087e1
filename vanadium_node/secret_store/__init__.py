"""What a secret means: a random key that stands for the blessings of an application."""

from vanadium_node.secret_store.known import KnownSecret, key_of_secret
from vanadium_node.secret_store.store import SecretStore, StoredSecret, open_secret_store

__all__ = ["KnownSecret", "SecretStore", "StoredSecret", "key_of_secret", "open_secret_store"]
