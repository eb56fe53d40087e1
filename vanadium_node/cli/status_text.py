"""The state of applications as people and machines read it: aligned columns like kubectl's, and one JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from vanadium_node.controller.agent_health import AgentHealth
from vanadium_node.controller.status import Application, Finding, Replica

NONE: Final = "-"
COLUMNS: Final = ("APPLICATION", "REPLICAS", "NAMES", "EXPIRES", "SECRET AGE", "STATE")
WIDE: Final = ("SECRET", "USES", "LAST USED", "RENEWED UNTIL", "IMAGES")
REPLICA_COLUMNS: Final = ("POD", "READY", "STATE", "RESTARTS", "AGE", "NAMES")
GAP: Final = 3


def age(span: timedelta) -> str:
    """Return a time span in its two largest units: `3d4h`, `5m10s`."""
    seconds = max(int(span.total_seconds()), 0)
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    first = next((n for n, (count, _) in enumerate(parts) if count), 3)
    return "".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"


def expiry(until: datetime | None, now: datetime) -> str:
    """Return when something ends, as people ask: in how long."""
    if until is None:
        return "never"
    return f"in {age(until - now)}" if until > now else f"{age(now - until)} ago"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, headers: bool = True) -> Iterator[str]:
    """Yield the lines of a table with aligned columns."""
    lines = [*([header] if headers else []), *rows]
    widths = [max((len(line[n]) for line in lines), default=0) + GAP for n in range(len(header))]
    for line in lines:
        yield "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def agent_line(agent: AgentHealth) -> str:
    """Return one line about the cluster agent."""
    count = "" if agent.secrets is None else f", {len(agent.secrets)} secret{'' if len(agent.secrets) == 1 else 's'}"
    why = f": {agent.problem}; {agent.next_step}" if agent.problem else ""
    return f"Cluster agent {agent.name}: {agent.health}{count}{why}"


def overview(
    found: Sequence[Application], now: datetime, *, wide: bool = False, namespaces: bool = False, headers: bool = True
) -> Iterator[str]:
    """Yield a line for each application, then one for each thing to look at."""
    header = (*(("NAMESPACE",) if namespaces else ()), *COLUMNS, *(WIDE if wide else ()))
    yield from table(header, (_row(a, now, wide, namespaces) for a in found), headers=headers)
    for application in found:
        yield from _findings(application)


def details(application: Application, now: datetime, *, headers: bool = True) -> Iterator[str]:
    """Yield the lines about the replicas of one application."""
    if application.replicas:
        yield ""
        yield from table(REPLICA_COLUMNS, (_replica_row(r, now) for r in application.replicas), headers=headers)


def _row(application: Application, now: datetime, wide: bool, namespaces: bool) -> tuple[str, ...]:
    known, progress = application.known, application.progress
    row = [
        application.title,
        NONE if progress is None else f"{progress.available}/{progress.desired}",
        ",".join(known.names) if known else NONE,
        expiry(known.expires, now) if known else NONE,
        age(now - application.secret_created) if application.secret_created else NONE,
        str(application.state),
    ]
    if namespaces:
        row.insert(0, application.namespace)
    if wide:
        row += [application.secret or NONE, *_use(application, now), ",".join(application.images) or NONE]
    return tuple(row)


def _use(application: Application, now: datetime) -> tuple[str, str, str]:
    known = application.known
    if known is None or known.last_used is None:
        return ("0" if known else NONE, NONE, NONE)
    return (str(known.uses), f"{age(now - known.last_used)} ago", expiry(known.replicas_until, now))


def _replica_row(replica: Replica, now: datetime) -> tuple[str, ...]:
    state = replica.state
    return (
        state.name,
        f"{state.ready}/{state.containers}",
        state.word + ("" if replica.is_new else " (old)"),
        str(state.restarts),
        age(now - replica.created) if replica.created else NONE,
        ",".join(replica.names) or NONE,
    )


def _findings(application: Application) -> Iterator[str]:
    for finding in application.findings:
        yield f"! {application.title}: {finding.text}; {finding.next_step}"


def document(agent: AgentHealth, found: Sequence[Application]) -> dict[str, Any]:
    """Return everything for machines: times in ISO 8601, null for what is not known."""
    return {
        "clusterAgent": {
            "name": agent.name,
            "health": str(agent.health),
            "secrets": None if agent.secrets is None else len(agent.secrets),
            "problem": agent.problem or None,
            "nextStep": agent.next_step or None,
        },
        "applications": [_application(application) for application in found],
    }


def _application(application: Application) -> dict[str, Any]:
    known, progress = application.known, application.progress
    return {
        "namespace": application.namespace,
        "kind": application.kind,
        "name": application.name,
        "state": str(application.state),
        "hasIdentity": application.has_identity,
        "replicas": None
        if progress is None
        else {"desired": progress.desired, "updated": progress.updated, "available": progress.available},
        "names": list(known.names) if known else None,
        "expires": _iso(known.expires) if known else None,
        "secret": application.secret,
        "secretCreated": _iso(application.secret_created),
        "uses": known.uses if known else None,
        "lastUsed": _iso(known.last_used) if known else None,
        "replicasUntil": _iso(known.replicas_until) if known else None,
        "images": list(application.images),
        "pods": [_pod(replica) for replica in application.replicas],
        "findings": [_finding(finding) for finding in application.findings],
    }


def _pod(replica: Replica) -> dict[str, Any]:
    state = replica.state
    return {
        "name": state.name,
        "state": state.word,
        "ready": state.ready,
        "containers": state.containers,
        "restarts": state.restarts,
        "isNew": replica.is_new,
        "names": list(replica.names),
        "address": replica.address or None,
        "node": replica.node or None,
        "created": _iso(replica.created),
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {"text": finding.text, "nextStep": finding.next_step}


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
