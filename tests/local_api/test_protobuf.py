"""The protobuf form in which newer kubectls send what they make themselves."""

import base64

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.local.api import protobuf
from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.protobuf_messages import KINDS, MESSAGES

CONFIG_MAP = base64.b64decode(
    # `kubectl create configmap settings --from-literal=color=red`, as kubectl 1.32 sends it
    "azhzAAoPCgJ2MRIJQ29uZmlnTWFwEi8KHwoIc2V0dGluZ3MSABoHZGVmYXVsdCIAKgAyADgAQgASDAoFY29sb3ISA3JlZBoAIgA="
)


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    return bytes([number << 3 | 2, len(content)]) + content


def request(api_version: str, kind: str, content: bytes) -> bytes:
    """Return an object in its envelope."""
    type_meta = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\x00" + field(1, type_meta) + field(2, content)


def test_a_config_map_as_kubectl_sends_it() -> None:
    """Empty fields are left out, as in JSON."""
    assert protobuf.decoded(CONFIG_MAP) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "default"},
        "data": {"color": "red"},
    }


def test_numbers_and_zeros_that_mean_something() -> None:
    """A deployment with no replicas has 0 of them, not the default."""
    deployment = protobuf.decoded(request("apps/v1", "Deployment", field(2, bytes([1 << 3, 0]))))
    assert deployment["spec"] == {"replicas": 0}


def test_numbers_or_texts() -> None:
    """A port by number or by name, bytes as base64."""
    by_number, by_name = bytes([1 << 3, 0, 2 << 3, 80]), bytes([1 << 3, 1]) + field(3, b"http")
    for given_port, port in ((by_number, 80), (by_name, "http")):
        service = protobuf.decoded(request("v1", "Service", field(2, field(1, field(4, given_port)))))
        assert service["spec"]["ports"] == [{"targetPort": port}]
    secret = protobuf.decoded(request("v1", "Secret", field(2, field(1, b"a") + field(2, b"\xff"))))
    assert secret["data"] == {"a": "/w=="}


def test_what_is_not_in_the_tables_is_refused() -> None:
    """A kind or field that would be lost: 415, naming it."""
    with pytest.raises(ApiError, match="does not read the kind Pod of v1 in protobuf") as refusal:
        protobuf.decoded(request("v1", "Pod", b""))
    assert refusal.value.status == 415
    with pytest.raises(ApiError, match="field 9 of ConfigMap"):
        protobuf.decoded(request("v1", "ConfigMap", field(9, b"x")))


@given(st.binary(max_size=60), st.sampled_from(sorted(KINDS)))
def test_no_bytes_make_it_fail(content: bytes, kind: tuple[str, str]) -> None:
    """Anything is an object or a refusal."""
    for body in (content, request(*kind, content)):
        status = None
        try:
            assert isinstance(protobuf.decoded(body), dict)
        except ApiError as error:
            status = error.status
        assert status in {None, 400, 415}


def test_the_tables_name_messages_that_exist() -> None:
    """Every kind of a field is a plain one or in the table."""
    plain = {"text", "bytes", "int", "bool", "quantity", "time", "number or text", "-"}
    for table in MESSAGES.values():
        for _name, kind in table.values():
            assert kind.lstrip("*{>?") in plain | MESSAGES.keys()


async def test_it_is_taken_like_json(api: httpx.AsyncClient) -> None:
    """The answer is JSON, which such clients read too."""
    headers = {"Content-Type": protobuf.MEDIA_TYPE, "Accept": f"{protobuf.MEDIA_TYPE},application/json"}
    answer = await api.post("/api/v1/namespaces/default/configmaps", content=CONFIG_MAP, headers=headers)
    assert (answer.status_code, answer.json()["data"]) == (201, {"color": "red"})
