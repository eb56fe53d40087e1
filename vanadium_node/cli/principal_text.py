"""How principals and blessings look when their description is piped: exact lines, that scripts may rely on."""

from datetime import datetime

from vanadium_node.security.blessing import Blessings, Chain
from vanadium_node.security.principal import Principal


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
    return ",".join(f"{chain.name}{' [EXPIRED]' if _has_expired(chain, now) else ''}" for chain in blessings.chains)


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


def _has_expired(chain: Chain, now: datetime) -> bool:
    return chain.expiry is not None and chain.expiry < now
