"""How principals and blessings look on a terminal: the facts of the plain lines as trees."""

from datetime import datetime

from rich.text import Text
from rich.tree import Tree

from vanadium_node.cli.principal_text import has_expired
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.principal import Principal


def blessings_tree(blessings: Blessings, now: datetime) -> Tree:
    """Return the facts of `dumpblessings` for people."""
    tree = Tree(_line("blessings ", (str(blessings), "bold"), f"  key {blessings.public_key}"))
    _add_chains(tree, blessings, now)
    return tree


def principal_tree(principal: Principal, now: datetime) -> Tree:
    """Return the facts of `dump` for people."""
    tree = Tree(_line("principal ", (principal.public_key.fingerprint, "bold")))
    default = principal.store.default
    shown = tree.add(_line("as a server: ", (str(default) if default else "nothing", "bold")))
    if default is not None:
        _add_chains(shown, default, now)
    peers = tree.add("as a client")
    for pattern, blessings in sorted(principal.store.peers.items()):
        peers.add(_line("to ", (pattern.text, "cyan"), ": ", (str(blessings), "bold")))
    roots = tree.add("recognizes")
    for key, patterns in principal.roots.entries.items():
        roots.add(_line((" ".join(p.text for p in patterns), "cyan"), f"  rooted at {key}"))
    return tree


def _add_chains(tree: Tree, blessings: Blessings, now: datetime) -> None:
    for chain in blessings.chains:
        expired = (" EXPIRED", "bold red") if has_expired(chain, now) else ""
        branch = tree.add(_line((chain.name, "bold"), expired, f"  rooted at {chain.root_key}"))
        for certificate in chain.certificates:
            leaf = branch.add(_line((certificate.extension, "green"), f"  {certificate.public_key}"))
            for caveat in certificate.caveats:
                leaf.add(_line((str(caveat), "yellow")))


def _line(*parts: str | tuple[str, str]) -> Text:
    """Return text in which no name is taken for markup."""
    return Text.assemble(*parts)
