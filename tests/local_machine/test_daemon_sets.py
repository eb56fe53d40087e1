"""Daemon sets: a pod on each node."""

from typing import Any

from machine_bench import Bench, container

from vanadium_node.local.api.kinds import DAEMON_SET, POD
from vanadium_node.local.api.objects import Object


def daemon_set(bench: Bench, *containers: Object, **spec: Any) -> Object:
    """Create a daemon set."""
    template = {
        "metadata": {"labels": {"app": "log"}},
        "spec": {"containers": list(containers) or [container()], "terminationGracePeriodSeconds": 5} | spec,
    }
    made = {"selector": {"matchLabels": {"app": "log"}}, "template": template}
    return bench.store.create(DAEMON_SET, {"metadata": {"name": "log"}, "spec": made})


def is_done(obj: Object) -> bool:
    """Tell whether the node has a new pod that is available."""
    status = obj.get("status", {})
    seen = status.get("observedGeneration", 0) >= obj["metadata"]["generation"]
    return bool(seen and status["updatedNumberScheduled"] == status["numberAvailable"] == 1)


def use(bench: Bench, image: str) -> None:
    """Give the container another image."""

    def edit(obj: Object) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    bench.store.modify(DAEMON_SET, "default", "log", edit)


async def test_a_pod_on_the_node(bench: Bench) -> None:
    """With the labels of its revision; one that is deleted, or has ended, is made again."""
    daemon_set(bench)
    await bench.until(is_done, DAEMON_SET, "log")
    (pod,) = bench.pods()
    assert pod["metadata"]["labels"]["pod-template-generation"] == "1"
    bench.store.delete(POD, "default", pod["metadata"]["name"])
    await bench.until_any(lambda other: other["metadata"]["uid"] != pod["metadata"]["uid"])
    await bench.until(is_done, DAEMON_SET, "log")
    assert len(bench.pods()) == 1


async def test_an_update_replaces_the_pod(bench: Bench) -> None:
    """The new one begins when the old one has ended; a broken template is replaced at once by a better one."""
    daemon_set(bench)
    await bench.until(is_done, DAEMON_SET, "log")
    use(bench, "registry.invalid/image:2")
    await bench.until_any(lambda pod: pod["spec"]["containers"][0]["image"].startswith("registry"))
    use(bench, "image:3")
    await bench.until(is_done, DAEMON_SET, "log")
    (pod,) = bench.pods()
    assert pod["spec"]["containers"][0]["image"] == "image:3"
    assert pod["metadata"]["labels"]["pod-template-generation"] == "3"


async def test_a_node_selector_that_fits_no_node(bench: Bench) -> None:
    """There is nothing to do, and the status says so."""
    daemon_set(bench, nodeSelector={"disk": "ssd"})
    status = (await bench.until(lambda d: "observedGeneration" in d.get("status", {}), DAEMON_SET, "log"))["status"]
    assert (status["desiredNumberScheduled"], status["currentNumberScheduled"]) == (0, 0)
    assert bench.pods() == ()
