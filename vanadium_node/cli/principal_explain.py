"""Why blessings would be accepted or not: a verdict with its reason on every certificate and caveat."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from vanadium_node.security.blessing import Blessings, Chain
from vanadium_node.security.caveat import FIRST_APPLICATION_ID, Caveat, CaveatId
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.validation import CallContext, why_not


class Verdict(StrEnum):
    """What can be said. A chain is worth as much as the worst of its parts."""

    ACCEPTED = "accepted"
    DEPENDS = "depends"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said of one thing, and why."""

    what: str
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class ChainExplanation:
    """All that is said of a chain: its root, and the caveats of each certificate."""

    chain: Chain
    root: Finding
    caveats: tuple[tuple[Finding, ...], ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict on the chain's name."""
        verdicts = {self.root.verdict, *(f.verdict for findings in self.caveats for f in findings)}
        if Verdict.REJECTED in verdicts:
            return Verdict.REJECTED
        return Verdict.DEPENDS if Verdict.DEPENDS in verdicts else Verdict.ACCEPTED


def explain_blessings(blessings: Blessings, roots: BlessingRoots, context: CallContext) -> tuple[ChainExplanation, ...]:
    """Judge every chain, certificate and caveat; what the context leaves open is neither accepted nor rejected."""
    return tuple(
        ChainExplanation(
            chain,
            _explain_root(chain, roots),
            tuple(tuple(_explain_caveat(c, context) for c in each.caveats) for each in chain.certificates),
        )
        for chain in blessings.chains
    )


def _explain_root(chain: Chain, roots: BlessingRoots) -> Finding:
    what = f"root key {chain.root_key}"
    patterns = roots.entries.get(chain.root_key, ())
    matching = [str(pattern) for pattern in patterns if pattern.is_matched_by(chain.name)]
    if matching:
        return Finding(what, Verdict.ACCEPTED, f"recognized for {', '.join(matching)}")
    if patterns:
        return Finding(what, Verdict.REJECTED, f"recognized only for {', '.join(map(str, patterns))}")
    return Finding(what, Verdict.REJECTED, "not recognized; 'principal recognize' would add it")


def _explain_caveat(caveat: Caveat, context: CallContext) -> Finding:
    missing = _missing(caveat, context)
    if missing:
        return Finding(str(caveat), Verdict.DEPENDS, missing)
    reason = why_not(caveat, context)
    if reason:
        return Finding(str(caveat), Verdict.REJECTED, reason)
    return Finding(str(caveat), Verdict.ACCEPTED, _why_it_holds(caveat, context))


def _missing(caveat: Caveat, context: CallContext) -> str:
    """Return what the verdict depends on and was not told; empty where it was."""
    if caveat.id in (CaveatId.METHOD, CaveatId.ACCESS_TAG, CaveatId.PEER_ADDRESS) and not caveat.parameter:
        return ""  # an empty list never holds, whatever the call
    match caveat.id:
        case CaveatId.METHOD if not context.method:
            return "depends on the method; say which with --method"
        case CaveatId.ACCESS_TAG if not context.tags:
            return "depends on the method's tag; say which with --tag"
        case CaveatId.PEER_ADDRESS if context.peer_address is None:
            return "depends on the caller's address; say which with --address"
        case CaveatId.THIRD_PARTY:
            return "needs a discharge, which the client fetches before the call"
        case id_ if id_ >= FIRST_APPLICATION_ID:
            return "depends on the application's own check"
        case _:
            return ""


def _why_it_holds(caveat: Caveat, context: CallContext) -> str:
    match caveat.id:
        case CaveatId.EXPIRY:
            return f"holds; it is {_time(context.now)}, {_span(caveat.time - context.now)} left"
        case CaveatId.NOT_BEFORE:
            return f"holds; it is {_time(context.now)}, since {_span(context.now - caveat.time)}"
        case CaveatId.METHOD:
            return f"holds for {context.method}"
        case CaveatId.ACCESS_TAG:
            return f"holds for {', '.join(sorted(context.tags))}"
        case CaveatId.PEER_BLESSINGS:
            return f"holds for {', '.join(context.local_names) or 'anybody'}"
        case CaveatId.PEER_ADDRESS:
            return f"holds for {context.peer_address}"
        case _:
            return "holds"


def explanation_lines(explained: tuple[ChainExplanation, ...], context: CallContext) -> list[str]:
    """Return the lines that `explain` prints."""
    lines = [f"It is {_time(context.now)}; judged by {', '.join(context.local_names) or 'an end without a name'}"]
    for each in explained:
        lines.append(f"{each.chain.name}: {each.verdict}")
        lines.append(f"  {each.root.what}: {each.root.why}")
        for number, (certificate, findings) in enumerate(zip(each.chain.certificates, each.caveats, strict=True)):
            noun = "caveat" if len(findings) == 1 else "caveats"
            lines.append(f"  Certificate #{number}: {certificate.extension} with {len(findings)} {noun}")
            lines += [f"    ({index}) {f.what}: {f.why}" for index, f in enumerate(findings)]
    return lines


def explanation_json(explained: tuple[ChainExplanation, ...], context: CallContext) -> dict[str, object]:
    """Return the same facts for machines."""
    return {
        "now": context.now.isoformat(),
        "judgedBy": list(context.local_names),
        "chains": [
            {
                "name": each.chain.name,
                "verdict": each.verdict,
                "root": _finding_json(each.root),
                "certificates": [
                    {"extension": certificate.extension, "caveats": [_finding_json(f) for f in findings]}
                    for certificate, findings in zip(each.chain.certificates, each.caveats, strict=True)
                ],
            }
            for each in explained
        ],
    }


def _finding_json(finding: Finding) -> dict[str, str]:
    return {"what": finding.what, "verdict": finding.verdict, "why": finding.why}


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _span(span: timedelta) -> str:
    """Return a span of time in its two largest units."""
    seconds = int(span.total_seconds())
    units = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]
    parts = []
    for unit, size in units:
        if seconds >= size:
            parts.append(f"{seconds // size}{unit}")
            seconds %= size
    return " ".join(parts[:2]) or "0s"
