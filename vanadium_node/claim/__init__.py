"""First ownership: a server without blessings is claimed once, by whoever it was told to expect."""

from vanadium_node.claim.ownership import Ownership, open_ownership
from vanadium_node.claim.service import Claimable

__all__ = ["Claimable", "Ownership", "open_ownership"]
