"""Which names of a principal's own blessings are good now, whatever they are going to be used for."""

from datetime import datetime
from typing import Final

from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import CaveatId
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.validation import CallContext, Rejected, Validation, why_not

INDEPENDENT_OF_CALLS: Final = frozenset({CaveatId.CONST, CaveatId.EXPIRY, CaveatId.NOT_BEFORE})
"""Caveats that can be judged without a call. The others may be meant to hold for few calls: they do not count here."""


def validate_own(blessings: Blessings | None, roots: BlessingRoots, now: datetime) -> Validation:
    """Return which names are rooted where `roots` say and valid at `now`, and why the others are not."""
    accepted, rejected = [], []
    context = CallContext(now=now)
    for chain in () if blessings is None else blessings.chains:
        reason = ""
        if not roots.recognizes(chain.root_key, chain.name):
            reason = f"its root {chain.root_key} is not recognized for this name"
        for caveat in chain.caveats:
            if caveat.id in INDEPENDENT_OF_CALLS:
                reason = reason or why_not(caveat, context)
        if reason:
            rejected.append(Rejected(chain.name, reason))
        else:
            accepted.append(chain.name)
    return Validation(tuple(accepted), tuple(rejected))
