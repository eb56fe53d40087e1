"""How the cluster agent is: whether it runs, is claimed, is who it should be, and tells the caller what it keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import trio

from vanadium_node.controller.site import ClusterAgent
from vanadium_node.errors import (
    CallError,
    ErrorCode,
    InputError,
    NotTrustedError,
    UnreachableError,
    VanadiumError,
)
from vanadium_node.secret_store import KnownSecret

PATIENCE_SECONDS: Final = 15.0


class Health(StrEnum):
    """What can be said about a cluster agent."""

    SERVING = "serving"
    SILENT = "serving, but not telling"
    ABSENT = "not running"
    UNREACHABLE = "unreachable"
    NOT_TRUSTED = "not trusted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHealth:
    """The cluster agent at one moment. `secrets`: what it keeps, by the hashes of the secrets; None where it does not tell."""

    name: str
    health: Health
    secrets: Mapping[bytes, KnownSecret] | None = None
    problem: str = ""
    next_step: str = ""

    @property
    def is_good(self) -> bool:
        """Tell whether it serves those that have a secret."""
        return self.health in {Health.SERVING, Health.SILENT}


async def health_of(agent: ClusterAgent, name: str) -> AgentHealth:
    """Ask the cluster agent, called `name`, how it is; whatever stands in the way is part of the answer."""
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            return AgentHealth(name=name, health=Health.SERVING, secrets=await agent.secrets())
    except VanadiumError as error:
        return AgentHealth(name=name, health=_health(error), problem=error.message, next_step=error.hint)
    except trio.TooSlowError:
        why = f"the cluster agent did not answer within {PATIENCE_SECONDS:g} s"
        return AgentHealth(name=name, health=Health.UNREACHABLE, problem=why, next_step="see whether its pod runs")


def _health(error: VanadiumError) -> Health:
    match error:
        case CallError(code=ErrorCode.NO_ACCESS | ErrorCode.UNKNOWN_METHOD):
            return Health.SILENT
        case UnreachableError():
            return Health.UNREACHABLE
        case NotTrustedError():
            return Health.NOT_TRUSTED
        case InputError():
            return Health.ABSENT
        case _:
            return Health.UNKNOWN
