"""The watch knows of each place in the product where something random is made: what stays secret, and what does not."""

import ast
from pathlib import Path

from taint_hooks import MAKERS

import vanadium_node

PRODUCT = Path(vanadium_node.__file__).parent

KEYS = {"vanadium_node.security.keys", "vanadium_node.rpc.tls", "vanadium_node.local.api.identity"}
"""Who makes private keys, all by functions that are hooked: `ec.generate_private_key`, or through `PrivateKey`."""

PUBLIC = {
    "vanadium_node.rpc.tracing": "ids of traces",
    "vanadium_node.cli.principal_caveats": "nonces, which are part of blessings",
    "vanadium_node.cli.principal_remote": "a token that people pass on by hand, for one grant while they wait",
    "vanadium_node.storage.audit_file": "names of files",
    "vanadium_node.storage.files": "names of files",
    "vanadium_node.cluster_agent.backup": "names of files",
    "vanadium_node.controller.app_secrets": "names of Secrets",
    "vanadium_node.controller.applications": "ids of operations",
    "vanadium_node.controller.administration": "ids of operations",
    "vanadium_node.controller.secret_files": "ids of operations",
    "vanadium_node.local.api.objects": "names of objects",
    "vanadium_node.local.api.allocation": "addresses and ports",
    "vanadium_node.local.machine.addresses": "addresses",
    "vanadium_node.local.machine.recorder": "names of events",
}
"""Who makes what nobody has to keep."""

RANDOM = {"token_bytes", "token_hex", "token_urlsafe", "choice", "randbelow", "urandom", "randbytes", "getrandbits"}
GENERATING = {"generate", "generate_private_key", "from_private_bytes", "derive_private_key"}


def callers(names: set[str], of: set[str]) -> set[tuple[str, str]]:
    """Return function and module of each call in the product of functions with these names, of modules or classes with those."""
    found = set()
    for path in PRODUCT.rglob("*.py"):
        module = ".".join(path.relative_to(PRODUCT.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr=name, value=ast.Name(id=owner) | ast.Attribute(attr=owner))):
                    if name in names and owner in of:
                        found.add((name, module))
    return found


def test_each_maker_of_secrets_is_watched() -> None:
    """A new one is either added to the watch or said to make nothing secret."""
    found = callers(RANDOM, {"secrets", "os"})
    assert set(MAKERS) <= found
    assert {module for name, module in found - set(MAKERS)} == set(PUBLIC)


def test_each_maker_of_keys_is_watched() -> None:
    """Keys are made in a few places, which the hooks see."""
    found = callers(GENERATING, {"ec", "ed25519", "rsa", "x25519", "Ed25519PrivateKey"})
    assert {module for _, module in found} == KEYS


def test_makers_are_called_by_their_modules() -> None:
    """The hooks replace functions of the module; a function that was imported by itself would be missed."""
    for path in PRODUCT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
            assert not names & (RANDOM | GENERATING), path
