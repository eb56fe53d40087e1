"""What all connections of a server share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import trio

from vanadium_node.rpc.deadlines import CallDeadlines
from vanadium_node.rpc.discharging import NONE, Collected, Discharging
from vanadium_node.rpc.fairness import Crowd
from vanadium_node.rpc.limiting import PeerLoads
from vanadium_node.rpc.observing import Observer
from vanadium_node.rpc.service import Method
from vanadium_node.rpc.workers import Workers
from vanadium_node.security.authorization import Authorizer
from vanadium_node.security.blessing import Blessings, ChainCache
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import Validator
from vanadium_node.wire.limits import Limits

Objects: TypeAlias = Mapping[str, Mapping[str, Method]]
"""Suffix → name of a method → the method."""


@dataclass(kw_only=True)
class Host:
    """What all sessions of a server share."""

    objects: Objects
    principal: Principal | None
    authorizer: Authorizer
    limits: Limits
    validators: Mapping[int, Validator]
    now: Callable[[], datetime]
    workers: Workers
    deadlines: CallDeadlines
    discharging: Discharging | None = None
    discharges: Collected = NONE
    """What is shown with the server's own blessings."""
    discharged: Blessings | None = None
    """The blessings that those were fetched for."""
    observer: Observer = field(default_factory=Observer)
    loads: PeerLoads = field(default_factory=PeerLoads)
    crowd: Crowd[Any] = field(init=False)
    """Its connections."""
    chains: ChainCache = field(default_factory=ChainCache)
    became_quiet: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    """Whoever waits for calls to end is woken when a connection has none any more."""

    def __post_init__(self) -> None:
        self.crowd = Crowd(self.limits)
