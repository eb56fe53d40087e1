"""The environment of a container: services, `envFrom`, `env`, and `$(VAR)` in all that may hold it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from vanadium_node.local.api.kinds import CONFIG_MAP, SECRET, SERVICE
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.machine.fields import pod_field, resource_field

_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^()]*)\))")
_VARIABLE: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


class ConfigurationMissing(Exception):
    """A container refers to something that is not there; the text is what a kubelet says then."""


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable of that name and `$$` by `$`; names that are not known stay as they are."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else variables.get(name, match[0])

    return _REFERENCE.sub(value, text)


def container_variables(store: ObjectStore, pod: Object, container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a container, those of services first.

    Raises:
        ConfigurationMissing: a Secret, a ConfigMap, a key or a field is not there, and was not called optional.
    """
    variables: dict[str, str] = {}
    if pod["spec"].get("enableServiceLinks", True):
        variables |= service_variables(store, pod["metadata"]["namespace"])
    for source in container.get("envFrom") or ():
        variables |= _all_from(store, pod, source)
    for entry in container.get("env") or ():
        name = str(entry["name"])
        if entry.get("valueFrom"):
            value = _value_from(store, pod, container, entry["valueFrom"])
            if value is not None:
                variables[name] = value
        else:
            variables[name] = expanded(str(entry.get("value") or ""), variables)
    return variables


def service_variables(store: ObjectStore, namespace: str) -> dict[str, str]:
    """Return where a namespace's services are, as variables of the form that container links once had."""
    variables: dict[str, str] = {}
    for service in store.list(SERVICE, namespace):
        address = service["spec"].get("clusterIP")
        ports = service["spec"].get("ports") or ()
        if not address or address == "None" or not ports:
            continue
        prefix = service["metadata"]["name"].upper().replace("-", "_")
        variables |= {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
        for port in ports:
            if port.get("name"):
                variables[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
        for position, port in enumerate(ports):
            variables |= _link(prefix, str(address), port, is_first=position == 0)
    return variables


def _link(prefix: str, address: str, port: Mapping[str, Any], *, is_first: bool) -> dict[str, str]:
    protocol = str(port.get("protocol") or "TCP")
    url = f"{protocol.lower()}://{address}:{port['port']}"
    name = f"{prefix}_PORT_{port['port']}_{protocol}"
    link = {
        name: url,
        f"{name}_PROTO": protocol.lower(),
        f"{name}_PORT": str(port["port"]),
        f"{name}_ADDR": address,
    }
    return {f"{prefix}_PORT": url, **link} if is_first else link


def secret_data(secret: Object) -> dict[str, bytes]:
    """Return the content of a Secret."""
    data = {key: base64.b64decode(value or "") for key, value in (secret.get("data") or {}).items()}
    return data | {key: str(value).encode() for key, value in (secret.get("stringData") or {}).items()}


def config_map_data(config_map: Object) -> dict[str, bytes]:
    """Return the content of a ConfigMap."""
    data = {key: str(value).encode() for key, value in (config_map.get("data") or {}).items()}
    return data | {key: base64.b64decode(value or "") for key, value in (config_map.get("binaryData") or {}).items()}


def source_data(store: ObjectStore, namespace: str, kind: str, name: str, *, optional: bool) -> dict[str, bytes] | None:
    """Return the content of a `secret` or `configmap`, None for an optional one that is not there.

    Raises:
        ConfigurationMissing: it is not there, and not optional.
    """
    resource = SECRET if kind == "secret" else CONFIG_MAP
    found = store.find(resource, namespace, name)
    if found is not None:
        return secret_data(found) if kind == "secret" else config_map_data(found)
    if optional:
        return None
    raise ConfigurationMissing(f'{kind} "{name}" not found')


def _all_from(store: ObjectStore, pod: Object, source: Mapping[str, Any]) -> dict[str, str]:
    kind = "secret" if source.get("secretRef") else "configmap"
    reference = source.get("secretRef") or source.get("configMapRef") or {}
    namespace = pod["metadata"]["namespace"]
    data = source_data(store, namespace, kind, str(reference.get("name")), optional=bool(reference.get("optional")))
    prefix = str(source.get("prefix") or "")
    named = {prefix + key: value for key, value in (data or {}).items()}
    return {key: value.decode(errors="surrogateescape") for key, value in named.items() if _VARIABLE.fullmatch(key)}


def _value_from(store: ObjectStore, pod: Object, container: Mapping[str, Any], source: Mapping[str, Any]) -> str | None:
    if "fieldRef" in source:
        path = str(source["fieldRef"].get("fieldPath", ""))
        return _known(pod_field(pod, path), f"field path {path}")
    if "resourceFieldRef" in source:
        reference = source["resourceFieldRef"]
        return _known(resource_field(pod, str(container["name"]), reference), f"resource {reference.get('resource')}")
    kind = "secret" if "secretKeyRef" in source else "configmap"
    reference = source.get("secretKeyRef") or source.get("configMapKeyRef") or {}
    namespace, name, key = pod["metadata"]["namespace"], str(reference.get("name")), str(reference.get("key"))
    optional = bool(reference.get("optional"))
    data = source_data(store, namespace, kind, name, optional=optional)
    if data is not None and key in data:
        return data[key].decode(errors="surrogateescape")
    if optional:
        return None
    word = "Secret" if kind == "secret" else "ConfigMap"
    raise ConfigurationMissing(f"couldn't find key {key} in {word} {namespace}/{name}")


def _known(value: str | None, what: str) -> str:
    if value is None:
        raise ConfigurationMissing(f"unsupported {what}")
    return value
