"""The rules for names, label keys and values, and the API's words for breaking them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_DNS_1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE: Final = f"({_QUALIFIED})?"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"
_ENVIRONMENT: Final = "[!-<>-~][ -<>-~]*"


def subdomain_fault(name: str) -> str | None:
    """Return what is wrong with a name that must be a DNS subdomain, as most objects' are."""
    if len(name) > 253:
        return "must be no more than 253 characters"
    if re.fullmatch(_SUBDOMAIN, name):
        return None
    return (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
        f"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
    )


def label_fault(name: str) -> str | None:
    """Return what is wrong with a name that must be a DNS label, as namespaces' and containers' are."""
    if len(name) > 63:
        return "must be no more than 63 characters"
    if re.fullmatch(_LABEL, name):
        return None
    return (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
    )


def service_fault(name: str) -> str | None:
    """Return what is wrong with a service's name."""
    if len(name) > 63:
        return "must be no more than 63 characters"
    if re.fullmatch(_DNS_1035, name):
        return None
    return (
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
        "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
        f"'{_DNS_1035}')"
    )


def path_fault(name: str) -> str | None:
    """Return what is wrong with a name that must only fit into a path, as roles' are."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    return next((f"may not contain '{c}'" for c in "/%" if c in name), None)


def key_fault(key: str) -> str | None:
    """Return what is wrong with the key of a label or annotation."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or subdomain_fault(prefix)):
        return f"prefix part {subdomain_fault(prefix) or 'must be non-empty'}"
    if not name or len(name) > 63:
        return "name part must be non-empty" if not name else "name part must be no more than 63 characters"
    if re.fullmatch(_QUALIFIED, name):
        return None
    return (
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
        f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
    )


def value_fault(value: str) -> str | None:
    """Return what is wrong with a label's value."""
    if len(value) > 63:
        return "must be no more than 63 characters"
    if re.fullmatch(_VALUE, value):
        return None
    return (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
        "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
        "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    )


def config_key_fault(key: str) -> str | None:
    """Return what is wrong with a key of a config map's or secret's data."""
    if len(key) > 253:
        return "must be no more than 253 characters"
    if re.fullmatch(_CONFIG_KEY, key) and key not in (".", ".."):
        return None
    return (
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
        f"or 'key-name', regex used for validation is '{_CONFIG_KEY}')"
    )


def environment_fault(name: str) -> str | None:
    """Return what is wrong with an environment variable's name."""
    if re.fullmatch(_ENVIRONMENT, name):
        return None
    return "a valid environment variable name must consist only of printable ASCII characters other than '='"


def label_faults(labels: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is wrong with labels: pairs of the key or value at fault and the sentence about it."""
    found: list[tuple[str, str]] = []
    for key, value in labels.items():
        if fault := key_fault(key):
            found.append((key, fault))
        if fault := value_fault(str(value)):
            found.append((str(value), fault))
    return found
