"""Persistent volume claims: each is bound at once to a directory, which is removed with it."""

from __future__ import annotations

from pathlib import Path

from vanadium_node.local.api.kinds import PERSISTENT_VOLUME_CLAIM
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.machine.controllers import Controller, itself
from vanadium_node.local.machine.recorder import Recorder
from vanadium_node.local.machine.volumes import remove_claim_directory


class Claims:
    """Binds claims."""

    def __init__(self, store: ObjectStore, recorder: Recorder, disks: Path) -> None:
        self._store = store
        self._events = recorder
        self._disks = disks

    def controller(self) -> Controller:
        """Return the controller to run."""
        return Controller(name="claims", reconcile=self.reconcile, watches={PERSISTENT_VOLUME_CLAIM: itself})

    def reconcile(self, namespace: str, name: str) -> None:
        """Bind a claim, or remove what was behind one that is gone."""
        claim = self._store.find(PERSISTENT_VOLUME_CLAIM, namespace, name)
        if claim is None:
            remove_claim_directory(self._disks, namespace, name)
            return
        if (claim.get("status") or {}).get("phase") == "Bound":
            return
        spec = claim.get("spec") or {}

        def edit(status: Object) -> None:
            status["phase"] = "Bound"
            status["accessModes"] = list(spec.get("accessModes") or ())
            status["capacity"] = dict((spec.get("resources") or {}).get("requests") or {})

        self._store.modify_status(PERSISTENT_VOLUME_CLAIM, namespace, name, edit)
        self._events.normal(claim, "ProvisioningSucceeded", "Successfully provisioned a directory of this machine")
