"""What the API fills in and refuses, kind by kind."""

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest

from vanadium_node.local.api import kinds
from vanadium_node.local.api.allocation import NODE_PORTS, SERVICE_NETWORK
from vanadium_node.local.api.kinds import DEPLOYMENT, JOB, NAMESPACE, POD, SECRET, SERVICE, ResourceType
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore, copied

Maker = Callable[..., Object]


def pod(**spec: Any) -> Object:
    """Return a pod."""
    container = {"name": "web", "image": "example/web:1"} | spec.pop("container", {})
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [container]} | spec}


def service(name: str = "web", **spec: Any) -> Object:
    """Return a service."""
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}]} | spec}


def test_deployments_get_their_defaults(store: ObjectStore, deployment: Maker) -> None:
    """Replicas, strategy, history, deadline; and the pod's own."""
    spec = store.create(DEPLOYMENT, deployment())["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    template = spec["template"]["spec"]
    assert (template["restartPolicy"], template["dnsPolicy"]) == ("Always", "ClusterFirst")
    assert template["terminationGracePeriodSeconds"] == 30
    (container,) = template["containers"]
    assert (container["imagePullPolicy"], container["resources"]) == ("IfNotPresent", {})
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("registry:5000/web", "Always"),
        ("registry:5000/web:1", "IfNotPresent"),
        ("web@sha256:00", "IfNotPresent"),
    ],
)
def test_only_the_latest_image_is_always_pulled(store: ObjectStore, image: str, policy: str) -> None:
    """An image without a tag is the latest; a port is no tag."""
    made = store.create(POD, pod(container={"image": image}))
    assert made["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_pods_get_their_defaults(store: ObjectStore) -> None:
    """Probes, volumes, quality of service, requests from limits."""
    probe = {"exec": {"command": ["true"]}}
    limits = {"cpu": "1", "memory": "1Gi"}
    made = store.create(
        POD,
        pod(
            container={"livenessProbe": probe, "resources": {"limits": limits}},
            volumes=[{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}}],
        ),
    )
    (container,) = made["spec"]["containers"]
    assert container["livenessProbe"] == probe | {
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container["resources"]["requests"] == limits
    assert made["spec"]["volumes"][0] == {"name": "a", "emptyDir": {}}
    assert made["spec"]["volumes"][1]["secret"]["defaultMode"] == 0o644
    assert made["status"] == {"phase": "Pending", "qosClass": "Guaranteed"}
    assert made["spec"]["serviceAccountName"] == "default"


def test_namespaces_and_secrets_get_their_defaults(store: ObjectStore) -> None:
    """A phase and a label; a type, and texts turned into data."""
    made = store.create(NAMESPACE, {"metadata": {"name": "shop"}})
    assert made["status"] == {"phase": "Active"}
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
    assert store.get(kinds.SERVICE_ACCOUNT, "shop", "default")
    secret = store.create(SECRET, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert (secret["type"], secret["data"]) == ("Opaque", {"a": "Yg=="})
    assert "stringData" not in secret


def test_jobs_select_their_own_pods(store: ObjectStore) -> None:
    """By a label with the job's uid."""
    template = {"spec": {"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Never"}}
    made = store.create(JOB, {"metadata": {"name": "once"}, "spec": {"template": template}})
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert made["spec"]["template"]["metadata"]["labels"]["job-name"] == "once"


def refusal(store: ObjectStore, resource: ResourceType, obj: Object) -> str:
    """Return the sentence with which an object is refused."""
    with pytest.raises(ApiError) as refused:
        store.create(resource, obj)
    assert refused.value.status == 422
    return refused.value.message


def test_a_deployment_needs_a_selector(store: ObjectStore, deployment: Maker) -> None:
    """apps/v1 makes none from the labels."""
    message = refusal(store, DEPLOYMENT, deployment(selector=None))
    assert message == 'Deployment.apps "web" is invalid: spec.selector: Required value'


def test_a_selector_must_match_the_template(store: ObjectStore, deployment: Maker) -> None:
    """The labels are quoted."""
    message = refusal(store, DEPLOYMENT, deployment(selector={"matchLabels": {"app": "other"}}))
    assert 'metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`' in message


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"strategy": {"type": "Big"}}, 'spec.strategy.type: Unsupported value: "Big": supported values: "Recreate"'),
        (
            {"strategy": {"type": "Recreate", "rollingUpdate": {}}},
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}},
            "maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        ({"strategy": {"rollingUpdate": {"maxSurge": "many"}}}, "a valid percent string must be"),
        ({"selector": {}}, "empty selector is invalid for deployment"),
    ],
)
def test_wrong_deployments_are_refused(store: ObjectStore, deployment: Maker, spec: Object, said: str) -> None:
    """In the real API server's words."""
    assert said in refusal(store, DEPLOYMENT, deployment(**spec))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"container": {"name": ""}}, "spec.containers[0].name: Required value"),
        ({"container": {"name": "Web"}}, "a lowercase RFC 1123 label must consist of"),
        ({"container": {"image": ""}}, "spec.containers[0].image: Required value"),
        ({"container": {"imagePullPolicy": "Maybe"}}, 'supported values: "Always", "IfNotPresent", "Never"'),
        ({"container": {"ports": [{"containerPort": 70000}]}}, "must be between 1 and 65535, inclusive"),
        (
            {"container": {"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}},
            'spec.containers[0].ports[1].name: Duplicate value: "a"',
        ),
        ({"container": {"env": [{"name": "A=B"}]}}, "a valid environment variable name must"),
        ({"container": {"env": [{"name": "A", "valueFrom": {}}]}}, "must specify one of: `fieldRef`"),
        (
            {"container": {"volumeMounts": [{"name": "x", "mountPath": "/x"}]}},
            'spec.containers[0].volumeMounts[0].name: Not found: "x"',
        ),
        ({"volumes": [{"name": "a"}, {"name": "a"}]}, 'spec.volumes[1].name: Duplicate value: "a"'),
        ({"volumes": [{"name": "a", "emptyDir": {}, "secret": {}}]}, "may not specify more than 1 volume type"),
        (
            {"container": {"livenessProbe": {}}},
            "spec.containers[0].livenessProbe: Required value: must specify a handler",
        ),
        ({"container": {"restartPolicy": "Always"}}, "may not be set for non-init containers"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy: Unsupported value"),
        (
            {"initContainers": [{"name": "web", "image": "x"}]},
            'Duplicate value: "web"',
        ),
        (
            {"initContainers": [{"name": "i", "image": "x", "startupProbe": {"exec": {"command": ["a"]}}}]},
            "may not be set for init containers without restartPolicy=Always",
        ),
    ],
)
def test_wrong_pods_are_refused(store: ObjectStore, spec: Object, said: str) -> None:
    """Every fault names the field it is in."""
    assert said in refusal(store, POD, pod(**spec))


def test_all_faults_are_named_at_once(store: ObjectStore) -> None:
    """As a list, and as causes for programs."""
    with pytest.raises(ApiError) as refused:
        store.create(POD, pod(container={"image": "", "name": ""}))
    assert refused.value.message.startswith('Pod "web" is invalid: [')
    assert [cause["field"] for cause in refused.value.details["causes"]] == [
        "spec.containers[0].name",
        "spec.containers[0].image",
    ]


def test_what_is_immutable_stays(store: ObjectStore, deployment: Maker) -> None:
    """A deployment's selector, a pod's command, an immutable secret, a role binding's role."""
    store.create(DEPLOYMENT, deployment())
    other = {"matchLabels": {"app": "web", "tier": "x"}}
    with pytest.raises(ApiError, match=r"spec\.selector: Invalid value: .* field is immutable"):
        store.modify(DEPLOYMENT, "default", "web", lambda obj: obj["spec"].update(selector=other))
    store.create(POD, pod())
    store.modify(POD, "default", "web", lambda obj: obj["spec"].update(nodeName="here"))
    store.modify(POD, "default", "web", lambda obj: obj["spec"]["containers"][0].update(image="example/web:2"))
    with pytest.raises(ApiError, match="pod updates may not change fields other than"):
        store.modify(POD, "default", "web", lambda obj: obj["spec"]["containers"][0].update(command=["sh"]))
    store.create(SECRET, {"metadata": {"name": "s"}, "immutable": True, "data": {"a": "Yg=="}})
    with pytest.raises(ApiError, match="field is immutable when `immutable` is set"):
        store.modify(SECRET, "default", "s", lambda obj: obj.update(data={}))


def test_services_get_an_address_each(store: ObjectStore) -> None:
    """Out of 127.96/16, never the same twice, and it stays."""
    made = [store.create(SERVICE, service(f"s{n}")) for n in range(50)]
    addresses = {obj["spec"]["clusterIP"] for obj in made}
    assert len(addresses) == 50
    assert all(IPv4Address(address) in SERVICE_NETWORK for address in addresses)
    assert made[0]["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert made[0]["spec"]["clusterIPs"] == [made[0]["spec"]["clusterIP"]]
    replaced = store.update(SERVICE, service("s0", ports=[{"port": 81}]))
    assert replaced["spec"]["clusterIP"] == made[0]["spec"]["clusterIP"]


def test_an_address_can_be_asked_for(store: ObjectStore) -> None:
    """If it is free and in the range; then nobody else gets it."""
    assert store.create(SERVICE, service(clusterIP="127.96.1.2"))["spec"]["clusterIP"] == "127.96.1.2"
    assert "already allocated" in refusal(store, SERVICE, service("other", clusterIP="127.96.1.2"))
    assert "not in the valid range" in refusal(store, SERVICE, service("other", clusterIP="10.0.0.1"))
    with pytest.raises(ApiError, match="may not change once set"):
        store.modify(SERVICE, "default", "web", lambda obj: obj["spec"].update(clusterIP="127.96.1.3", clusterIPs=[]))


def test_headless_and_external_services_get_none(store: ObjectStore) -> None:
    """`None` stays `None`; a name needs no address."""
    assert store.create(SERVICE, service(clusterIP="None"))["spec"]["clusterIPs"] == ["None"]
    external = store.create(SERVICE, service("out", type="ExternalName", externalName="example.com"))
    assert "clusterIP" not in external["spec"]


def test_node_ports_are_given_kept_and_taken_back(store: ObjectStore) -> None:
    """For NodePort and LoadBalancer, unique, in 30000-32767."""
    made = store.create(SERVICE, service(type="LoadBalancer"))
    port = made["spec"]["ports"][0]["nodePort"]
    assert port in NODE_PORTS
    taken = service("other", type="NodePort", ports=[{"port": 80, "nodePort": port}])
    assert "provided port is already allocated" in refusal(store, SERVICE, taken)
    wrong = service("other", type="NodePort", ports=[{"port": 80, "nodePort": 80}])
    assert "The range of valid ports is 30000-32767" in refusal(store, SERVICE, wrong)
    kept = store.update(SERVICE, service(type="LoadBalancer"))
    assert kept["spec"]["ports"][0]["nodePort"] == port
    inside: Object = copied(kept)
    inside["spec"]["type"] = "ClusterIP"
    assert "nodePort" not in store.update(SERVICE, inside)["spec"]["ports"][0]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        ({"type": "Round"}, 'spec.type: Unsupported value: "Round"'),
        ({"ports": [{"port": 0}]}, "must be between 1 and 65535, inclusive"),
        ({"ports": [{"port": 1}, {"port": 2}]}, "spec.ports[0].name: Required value"),
        (
            {"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]},
            'spec.ports[1]: Duplicate value: {"port":1,"protocol":"TCP"}',
        ),
        ({"ports": [{"port": 1, "protocol": "ICMP"}]}, "spec.ports[0].protocol: Unsupported value"),
    ],
)
def test_wrong_services_are_refused(store: ObjectStore, spec: Object, said: str) -> None:
    """Ports are what people get wrong."""
    assert said in refusal(store, SERVICE, service(**spec))


def test_service_names_begin_with_a_letter(store: ObjectStore) -> None:
    """They are DNS-1035 labels."""
    assert "a DNS-1035 label must consist of" in refusal(store, SERVICE, service("1st"))


def test_secrets_hold_base64_and_not_too_much(store: ObjectStore) -> None:
    """Other data is refused, without quoting it."""
    message = refusal(store, SECRET, {"metadata": {"name": "s"}, "data": {"a": "not base64!"}})
    assert "illegal base64 data" in message
    assert "not base64!" not in message
    large = {"metadata": {"name": "s"}, "data": {"a": "A" * 2_000_000}}
    assert "may not be more than 1048576 bytes" in refusal(store, SECRET, large)


@pytest.mark.parametrize(
    "resource", [r for r in kinds.RESOURCES if r is not kinds.NEW_EVENT], ids=lambda r: str(r.kind)
)
def test_every_kind_can_be_made_with_the_least(store: ObjectStore, resource: ResourceType) -> None:
    """No kind's defaults stumble over what is not there: it is made, or refused for what it lacks."""
    needing = {kinds.SERVICE, POD, DEPLOYMENT, kinds.REPLICA_SET, kinds.STATEFUL_SET, kinds.DAEMON_SET, JOB}
    needing |= {kinds.CRON_JOB, kinds.ROLE_BINDING, kinds.CLUSTER_ROLE_BINDING}
    if resource in needing:
        assert "Required value" in refusal(store, resource, {"metadata": {"name": "least"}})
    else:
        assert store.create(resource, {"metadata": {"name": "least"}})["kind"] == resource.kind
