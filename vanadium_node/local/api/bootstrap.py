"""What a new cluster holds before anybody has asked for anything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from vanadium_node.local.api.admission import StandardAdmission
from vanadium_node.local.api.kinds import NAMESPACE
from vanadium_node.local.api.objects import ObjectStore, utc_now

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


def new_store(now: Callable[[], datetime] = utc_now) -> ObjectStore:
    """Return the store of a new cluster, which fills in defaults and refuses what a real API server refuses."""
    store = ObjectStore(StandardAdmission(), now=now)
    for name in NAMESPACES:
        store.create(NAMESPACE, {"metadata": {"name": name}})
    return store
