"""What the controller says about its caller: the roots to trust, and the names of who may claim."""

from vanadium_node.errors import ConfigurationError, InputError
from vanadium_node.security.blessing import Blessings, Chain
from vanadium_node.security.certificate import chain_digest
from vanadium_node.security.principal import Principal


def own_blessings(principal: Principal, given: str | None = None) -> Blessings:
    """Return the blessings to extend: those given in text form, else the principal's default.

    Raises:
        ConfigurationError: the principal has no default blessings.
        InputError: those given are none, or are bound to another key.
    """
    if given is not None:
        blessings = Blessings.parse(given)
        if blessings.public_key != principal.public_key:
            raise InputError(
                f"the base blessings {blessings} are bound to the key {blessings.public_key}, "
                f"not to this principal's, {principal.public_key}",
                hint="give blessings that this principal received",
            )
        return blessings
    if principal.store.default is None:
        raise ConfigurationError(
            "this principal has no default blessings", hint="set some with 'vanadium-node principal set default'"
        )
    return principal.store.default


def root_blessings(blessings: Blessings) -> str:
    """Return what makes a program trust the roots of the blessings: each root's own certificate as blessings, in text form."""
    roots = {chain.root_key: chain.certificates[0] for chain in blessings.chains}
    texts = [
        Blessings.from_chains([Chain((certificate,), chain_digest(b"", certificate.encoded))]).text
        for certificate in roots.values()
    ]
    return ",".join(texts)


def named(blessings: Blessings, name: str) -> Blessings:
    """Return those of the blessings that give exactly this name.

    Raises:
        InputError: none does.
    """
    chains = [chain for chain in blessings.chains if chain.name == name]
    if not chains:
        raise InputError(
            f"the cluster agent's blessing extends '{name}', and this principal is '{blessings}'",
            hint="use other credentials (--credentials), or correct 'clusterAgent.blessing' in the configuration",
        )
    return Blessings.from_chains(chains)


def claimer_pattern(blessings: Blessings, name: str) -> str:
    """Return the pattern by which a new cluster agent knows its claimer: exactly this name of the caller's, no extension.

    An extension would do for a pod: whatever has a name under the claimer's could take the agent over before its owner does.

    Raises:
        InputError: the caller does not have the name, and could never claim the agent.
    """
    return f"{named(blessings, name).names[0]}:$"
