"""How principals and blessings look when their description is piped: exact lines, or JSON, that scripts may rely on."""

from datetime import datetime

from vanadium_node.security.blessing import Blessings, Chain
from vanadium_node.security.principal import Principal
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.store import BlessingStore


def principal_text(principal: Principal) -> str:
    """Return what `dump` prints."""
    return "\n".join(
        [
            f"Public key : {principal.public_key}",
            f"Default Blessings : {principal.store.default or ''}".rstrip(),
            "---------------- BlessingStore ----------------",
            principal.store.table(),
            "---------------- BlessingRoots ----------------",
            principal.roots.table(),
        ]
    )


def names_text(blessings: Blessings | None, now: datetime) -> str:
    """Return the names, each that has expired marked as such."""
    if blessings is None:
        return ""
    return ",".join(f"{chain.name}{' [EXPIRED]' if has_expired(chain, now) else ''}" for chain in blessings.chains)


def blessings_text(blessings: Blessings) -> str:
    """Return what `dumpblessings` prints."""
    lines = [
        f"Blessings          : {blessings}",
        f"PublicKey          : {blessings.public_key}",
        f"Certificate chains : {len(blessings.chains)}",
    ]
    for number, chain in enumerate(blessings.chains):
        lines.extend(_chain_lines(number, chain))
    return "\n".join(lines)


def _chain_lines(number: int, chain: Chain) -> list[str]:
    count = len(chain.certificates)
    lines = [f"Chain #{number} ({count} certificates). Root certificate public key: {chain.root_key}"]
    for position, certificate in enumerate(chain.certificates):
        caveats = certificate.caveats
        noun = "caveat" if len(caveats) == 1 else "caveats"
        lines.append(f"  Certificate #{position}: {certificate.extension} with {len(caveats)} {noun}")
        lines += [f"    ({index}) {caveat}" for index, caveat in enumerate(caveats)]
    return lines


def has_expired(chain: Chain, now: datetime) -> bool:
    """Tell whether a chain has a caveat that ended."""
    return chain.expiry is not None and chain.expiry < now


def principal_json(principal: Principal, now: datetime) -> dict[str, object]:
    """Return what `dump --json` prints."""
    default = principal.store.default
    return {
        "publicKey": principal.public_key.fingerprint,
        "default": None if default is None else blessings_json(default, now),
        "peers": peers_json(principal.store),
        "roots": roots_json(principal.roots),
    }


def peers_json(store: BlessingStore) -> dict[str, list[str]]:
    """Return the names shown to each peer pattern."""
    return {pattern.text: list(blessings.names) for pattern, blessings in sorted(store.peers.items())}


def roots_json(roots: BlessingRoots) -> list[dict[str, object]]:
    """Return the recognized roots."""
    return [
        {"publicKey": key.fingerprint, "patterns": [p.text for p in patterns]}
        for key, patterns in roots.entries.items()
    ]


def blessings_json(blessings: Blessings, now: datetime) -> dict[str, object]:
    """Return what `dumpblessings --json` prints."""
    return {
        "names": list(blessings.names),
        "publicKey": blessings.public_key.fingerprint,
        "chains": [_chain_json(chain, now) for chain in blessings.chains],
        "blessings": blessings.text,
    }


def _chain_json(chain: Chain, now: datetime) -> dict[str, object]:
    return {
        "name": chain.name,
        "rootKey": chain.root_key.fingerprint,
        "expiry": None if chain.expiry is None else chain.expiry.isoformat(),
        "expired": has_expired(chain, now),
        "certificates": [
            {
                "extension": certificate.extension,
                "publicKey": certificate.public_key.fingerprint,
                "caveats": [{"id": caveat.id, "text": str(caveat)} for caveat in certificate.caveats],
            }
            for certificate in chain.certificates
        ],
    }
