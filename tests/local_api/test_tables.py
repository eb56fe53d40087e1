"""Tables: the columns and words that kubectl shows."""

from datetime import UTC, datetime
from typing import Any

import pytest

from vanadium_node.local.api import kinds
from vanadium_node.local.api.kinds import DEPLOYMENT, EVENT, POD, SERVICE
from vanadium_node.local.api.objects import Object
from vanadium_node.local.api.rows import short_duration
from vanadium_node.local.api.tables import cells, columns

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (190, "3m10s"),
        (900, "15m"),
        (10800, "3h"),
        (12000, "3h20m"),
        (36000, "10h"),
        (180000, "2d2h"),
        (86400 * 9, "9d"),
        (86400 * 365 * 2, "2y"),
        (86400 * 365 * 2 + 86400 * 5, "2y5d"),
        (86400 * 365 * 9, "9y"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """As kubectl writes ages: two units at most."""
    assert short_duration(seconds) == text


def pod(status: dict[str, Any], **rest: Any) -> Object:
    """Return a pod with one container, and a sidecar if it is asked for."""
    spec: dict[str, Any] = {"containers": [{"name": "web"}], "nodeName": "here"} | rest.pop("spec", {})
    metadata = {"name": "web", "creationTimestamp": "2026-11-23T11:59:00Z"} | rest.pop("metadata", {})
    return {"metadata": metadata, "spec": spec, "status": status}


def state(name: str = "web", *, ready: bool = False, restarts: int = 0, **states: Any) -> Object:
    """Return a container's status."""
    return {"name": name, "ready": ready, "restartCount": restarts, "state": states}


RUNNING = {"startedAt": "2026-11-23T11:59:00Z"}


@pytest.mark.parametrize(
    ("obj", "ready", "word"),
    [
        (pod({}), "0/1", "Pending"),
        (pod({"phase": "Running", "containerStatuses": [state(ready=True, running=RUNNING)]}), "1/1", "Running"),
        (pod({"containerStatuses": [state(waiting={"reason": "ImagePullBackOff"})]}), "0/1", "ImagePullBackOff"),
        (pod({"containerStatuses": [state(terminated={"exitCode": 3})]}), "0/1", "ExitCode:3"),
        (pod({"containerStatuses": [state(terminated={"signal": 9})]}), "0/1", "Signal:9"),
        (
            pod({"phase": "Succeeded", "containerStatuses": [state(terminated={"reason": "Completed"})]}),
            "0/1",
            "Completed",
        ),
        (pod({"phase": "Failed", "reason": "Evicted"}), "0/1", "Evicted"),
        (pod({"phase": "Running"}, metadata={"deletionTimestamp": "2026-11-23T12:00:00Z"}), "0/1", "Terminating"),
        (
            pod(
                {"initContainerStatuses": [state("a", running=RUNNING)]},
                spec={"initContainers": [{"name": "a"}, {"name": "b"}]},
            ),
            "0/1",
            "Init:0/2",
        ),
        (
            pod(
                {"initContainerStatuses": [state("a", terminated={"exitCode": 1, "reason": "Error"})]},
                spec={"initContainers": [{"name": "a"}]},
            ),
            "0/1",
            "Init:Error",
        ),
        (
            pod(
                {
                    "phase": "Running",
                    "initContainerStatuses": [state("agent", ready=True, running=RUNNING) | {"started": True}],
                    "containerStatuses": [state(ready=True, running=RUNNING)],
                },
                spec={"initContainers": [{"name": "agent", "restartPolicy": "Always"}]},
            ),
            "2/2",
            "Running",
        ),
    ],
)
def test_pods_say_how_they_are(obj: Object, ready: str, word: str) -> None:
    """READY counts sidecars; STATUS is the most telling reason there is."""
    row = cells(POD, obj, NOON)
    assert (row[1], row[2]) == (ready, word)


def test_restarts_say_when_the_last_was() -> None:
    """As kubectl does since 1.22."""
    restarted = state(ready=True, restarts=2, running=RUNNING)
    restarted["lastState"] = {"terminated": {"finishedAt": "2026-11-23T11:59:30Z"}}
    row = cells(POD, pod({"containerStatuses": [restarted]}), NOON)
    assert (row[3], row[4]) == ("2 (30s ago)", "60s")


def test_deployments_show_their_replicas() -> None:
    """And, wide, containers, images and the selector."""
    obj = {
        "metadata": {"name": "web", "creationTimestamp": "2026-11-23T11:00:00Z"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}},
        },
        "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
    }
    assert cells(DEPLOYMENT, obj, NOON) == ["web", "1/3", 2, 1, "60m", "a,b", "x,y", "app=web"]


def test_services_show_where_they_are() -> None:
    """A load balancer's address, or that it is pending."""
    obj: Object = {
        "metadata": {"name": "web", "creationTimestamp": "2026-11-23T11:59:00Z"},
        "spec": {"type": "LoadBalancer", "clusterIP": "127.96.1.2", "ports": [{"port": 80, "nodePort": 30080}]},
        "status": {},
    }
    assert cells(SERVICE, obj, NOON)[1:5] == ["LoadBalancer", "127.96.1.2", "<pending>", "80:30080/TCP"]
    obj["status"] = {"loadBalancer": {"ingress": [{"ip": "127.1.2.3"}]}}
    assert cells(SERVICE, obj, NOON)[3] == "127.1.2.3"


def test_events_begin_with_when_they_were_seen() -> None:
    """Old and new events alike."""
    event = {
        "metadata": {"name": "e"},
        "lastTimestamp": "2026-11-23T11:59:50Z",
        "type": "Warning",
        "reason": "Failed",
        "involvedObject": {"kind": "Pod", "name": "web"},
        "source": {"component": "kubelet"},
        "message": "no such program\n",
    }
    row = cells(EVENT, event, NOON)
    assert row[:4] == ["10s", "Warning", "Failed", "pod/web"]
    assert row[6] == "no such program"
    assert cells(EVENT, {"metadata": {"name": "e"}, "eventTime": "2026-11-23T11:59:00.000001Z"}, NOON)[0] == "59s"


def test_rows_are_as_wide_as_their_columns() -> None:
    """For every kind, even of an object that says nothing."""
    for resource in kinds.RESOURCES:
        row = cells(resource, {"metadata": {"name": "least"}}, NOON)
        assert len(row) == len(columns(resource)), resource.kind
