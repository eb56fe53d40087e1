"""Pods as processes: start, environment, volumes, probes, ends, back-off. Real processes, and a clock that can jump."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from machine_bench import Bench, conditions, container, restarts, shell, state
from trio.testing import MockClock

from vanadium_node.local.api.kinds import CONFIG_MAP, EVENT, PERSISTENT_VOLUME_CLAIM, POD, SECRET, SERVICE
from vanadium_node.local.api.objects import ApiError, Object


async def test_a_pod_becomes_ready_with_all_that_a_kubelet_says(bench: Bench) -> None:
    """Status, conditions and events of a pod that runs are those that kubectl expects."""
    bench.pod(shell("echo hello; exec sleep 1000"))
    pod = await bench.until_ready()
    status = pod["status"]
    assert status["phase"] == "Running"
    assert set(conditions(pod)) == {
        "PodScheduled",
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "Ready",
    }
    assert set(conditions(pod).values()) == {"True"}
    assert status["podIP"].startswith("127.")
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert status["hostIP"] == "127.0.0.1"
    assert status["startTime"]
    assert status["containerStatuses"][0]["ready"] is True
    assert status["containerStatuses"][0]["containerID"].startswith("process://")
    assert bench.reasons() == ["Scheduled", "Pulled", "Created", "Started"]
    assert "hello\n" in await bench.until_logged("hello")


async def test_each_pod_has_its_own_address(bench: Bench) -> None:
    """Two pods serve the same port."""
    for name in ("one", "two"):
        bench.pod(container(), name=name)
    one, two = await bench.until_ready("one"), await bench.until_ready("two")
    assert one["status"]["podIP"] != two["status"]["podIP"]


async def test_deletion_is_graceful_and_leaves_nothing(bench: Bench) -> None:
    """A pod that is deleted gets SIGTERM, may end in its own way, and is removed with its files."""
    bench.pod(shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"))
    await bench.until_logged("up")
    bench.store.delete(POD, "default", "pod")
    assert "bye" in await bench.until_logged("bye")
    await bench.until_gone()
    assert "Killing" in bench.reasons()
    assert list((bench.root / "p").iterdir()) == []


async def test_who_does_not_end_is_killed_at_the_deadline(clock: MockClock, bench: Bench) -> None:
    """After the grace period comes SIGKILL, for everything that the container has started."""
    bench.pod(shell("trap '' TERM; sleep 1000 & echo $!; wait; wait"))
    child = int((await bench.until_logged("\n")).strip())
    bench.store.delete(POD, "default", "pod", grace_seconds=60)
    await trio.sleep(0.1)
    assert bench.store.find(POD, "default", "pod") is not None
    clock.jump(60)
    await bench.until_gone()
    await _until_dead(child)


async def test_force_deletion_kills_at_once(bench: Bench) -> None:
    """With no grace the object is gone at once, and its processes a moment later."""
    bench.pod(shell("trap '' TERM; echo $$$$; while :; do sleep 1; done"))
    process = int((await bench.until_logged("\n")).strip())
    bench.store.delete(POD, "default", "pod", grace_seconds=0)
    assert bench.store.find(POD, "default", "pod") is None
    await _until_dead(process)


async def test_init_containers_run_in_order_and_share_volumes(bench: Bench) -> None:
    """Each init container ends before the next begins; what they leave in a volume is there for the container."""
    mount: dict[str, Any] = {"volumeMounts": [{"name": "v", "mountPath": "/work"}]}
    bench.pod(
        shell("cat /work/list; exec sleep 1000", **mount),
        initContainers=[
            shell("sleep 0.2; echo first >> /work/list", "one", **mount),
            shell("echo second >> /work/list", "two", **mount),
        ],
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    await bench.until_ready()
    assert await bench.until_logged("second") == "first\nsecond\n"


async def test_a_sidecar_starts_first_and_ends_last(bench: Bench) -> None:
    """A native sidecar is up, by its startup probe, before what comes after it, and outlives the containers."""
    mount: dict[str, Any] = {"volumeMounts": [{"name": "v", "mountPath": "/work"}]}
    say = "trap 'echo {0} >> /work/ends; exit 0' TERM; {1}; while :; do sleep 0.02; done"
    bench.store.create(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": "kept"}, "spec": _claim()})
    bench.pod(
        shell("test -f /work/up || exit 9;" + say.format("app", "echo go"), **mount),
        initContainers=[
            shell(
                say.format("side", "sleep 0.3; touch /work/up"),
                "side",
                restartPolicy="Always",
                startupProbe={"exec": {"command": ["test", "-f", "/work/up"]}, "periodSeconds": 1},
                **mount,
            )
        ],
        volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "kept"}}],
    )
    pod = await bench.until_ready()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert pod["status"]["initContainerStatuses"][0]["started"] is True
    await bench.until_logged("go")
    bench.store.delete(POD, "default", "pod")
    await bench.until_gone()
    assert (bench.root / "disks" / "pvc-default-kept" / "ends").read_text() == "app\nside\n"


async def test_the_app_waits_while_the_sidecar_is_not_up(bench: Bench) -> None:
    """Until then the pod is pending, and says for which container."""
    probe = {"exec": {"command": ["false"]}, "failureThreshold": 100}
    bench.pod(container(), initContainers=[container("side", restartPolicy="Always", startupProbe=probe)])
    pod = await bench.until(lambda p: "running" in state(p, key="initContainerStatuses"))
    assert pod["status"]["phase"] == "Pending"
    assert state(pod)["waiting"]["reason"] == "PodInitializing"
    assert conditions(pod)["Initialized"] == "False"


async def test_a_killed_process_is_started_again(bench: Bench) -> None:
    """Killing a container's process gets it restarted at once, the first time, with its old run's log kept."""
    bench.pod(shell("echo $$$$; exec sleep 1000"))
    first = (await bench.until_logged("\n")).strip()
    os.kill(int(first), signal.SIGKILL)
    pod = await bench.until(lambda p: restarts(p) == 1 and "running" in state(p))
    last = pod["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "Error")
    assert (await bench.until_logged("\n")).strip() != first
    assert (await bench.log(previous=True)).strip() == first


async def test_crash_loops_back_off(clock: MockClock, bench: Bench) -> None:
    """The first restart is immediate; then 10 s, 20 s, 40 s, … up to 5 minutes."""
    bench.pod(shell("echo run; exit 3"))
    for count, words in ((1, "10s"), (2, "20s"), (3, "40s"), (4, "1m20s"), (5, "2m40s"), (6, "5m0s"), (7, "5m0s")):
        pod = await bench.until(
            lambda p, n=count: restarts(p) == n and state(p).get("waiting", {}).get("reason") == "CrashLoopBackOff"  # type: ignore[misc]
        )
        status = pod["status"]["containerStatuses"][0]
        assert f"back-off {words} restarting failed container=app pod=pod_default(" in state(pod)["waiting"]["message"]
        assert status["lastState"]["terminated"]["exitCode"] == 3
        assert pod["status"]["phase"] == "Running"
        clock.jump(300)
    assert "BackOff" in bench.reasons()
    assert await bench.log(previous=True) == "run\n"


async def test_a_container_in_back_off_can_be_deleted(bench: Bench) -> None:
    """Nobody waits for the end of a back-off."""
    bench.pod(shell("exit 1"))
    await bench.until_waiting("CrashLoopBackOff")
    bench.store.delete(POD, "default", "pod")
    await bench.until_gone()


@pytest.mark.parametrize(
    ("policy", "command", "phase"),
    [("Never", "exit 0", "Succeeded"), ("Never", "exit 2", "Failed"), ("OnFailure", "exit 0", "Succeeded")],
)
async def test_pods_that_end(bench: Bench, policy: str, command: str, phase: str) -> None:
    """Without restarts a pod ends as its containers did, and keeps its log until it is deleted."""
    bench.pod(shell(f"echo out; {command}"), restartPolicy=policy)
    pod = await bench.until(lambda p: p["status"].get("phase") == phase)
    assert conditions(pod)["Ready"] == "False"
    assert await bench.log() == "out\n"
    bench.store.delete(POD, "default", "pod")
    await bench.until_gone()


async def test_a_failed_init_container_fails_a_pod_that_is_never_restarted(bench: Bench) -> None:
    """Its containers never start."""
    bench.pod(shell("echo no"), restartPolicy="Never", initContainers=[shell("exit 4", "init")])
    pod = await bench.until(lambda p: p["status"].get("phase") == "Failed")
    assert state(pod, key="initContainerStatuses")["terminated"]["exitCode"] == 4
    with pytest.raises(ApiError, match="waiting to start: PodInitializing"):
        await bench.log()


async def test_the_sidecars_of_a_pod_that_is_done_are_stopped(bench: Bench) -> None:
    """A pod whose containers have ended does not go on because of its sidecars."""
    bench.pod(shell("exit 0"), restartPolicy="Never", initContainers=[container("side", restartPolicy="Always")])
    await bench.until(
        lambda p: p["status"].get("phase") == "Succeeded" and "terminated" in state(p, key="initContainerStatuses")
    )


async def test_an_active_deadline_ends_a_pod(clock: MockClock, bench: Bench) -> None:
    """A pod that is active for too long has failed."""
    bench.pod(container(), activeDeadlineSeconds=60)
    await bench.until_ready()
    clock.jump(60)
    pod = await bench.until(lambda p: p["status"].get("phase") == "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"


async def test_an_image_that_cannot_exist(bench: Bench) -> None:
    """A registry under `.invalid` fails as an unreachable one: ErrImagePull, then ImagePullBackOff."""
    bench.pod({"name": "app", "image": "registry.invalid/app:2"})
    status = await bench.until_waiting("ErrImagePull")
    assert "lookup registry.invalid: no such host" in status["state"]["waiting"]["message"]
    await bench.until_waiting("ImagePullBackOff")
    assert {"Pulling", "Failed", "BackOff"} <= set(bench.reasons())
    with pytest.raises(ApiError, match="trying and failing to pull image"):
        await bench.log()
    bench.store.delete(POD, "default", "pod")
    await bench.until_gone()


async def test_an_image_name_that_makes_no_sense(bench: Bench) -> None:
    """It is refused for good."""
    bench.pod({"name": "app", "image": "UPPER case!"})
    await bench.until_waiting("InvalidImageName")


async def test_a_command_that_is_not_there(bench: Bench) -> None:
    """It fails as with a container runtime: the event names the command."""
    bench.pod(container(command=["no-such-program"]))
    await bench.until_waiting("RunContainerError")
    assert 'exec: "no-such-program": executable file not found in $PATH' in bench.messages("Failed")[0]
    status = await bench.until_waiting("CrashLoopBackOff")
    assert status["lastState"]["terminated"]["reason"] == "StartError"


async def test_a_container_without_a_command_runs_the_image_s_entrypoint(bench: Bench) -> None:
    """That is `vanadium-node`, of the environment that the cluster runs in."""
    bench.pod({"name": "app", "image": "image:1", "args": ["--version"]}, restartPolicy="Never")
    await bench.until(lambda p: p["status"].get("phase") == "Succeeded")
    assert "vanadium-node" in await bench.log()


async def test_the_environment(bench: Bench) -> None:
    """Values, fields, secrets, config maps and services arrive; references are expanded in order."""
    bench.store.create(SECRET, {"metadata": {"name": "s"}, "data": {"k": "dmFsdWU="}})
    bench.store.create(CONFIG_MAP, {"metadata": {"name": "c"}, "data": {"ONE": "1", "not-a-name": "x"}})
    bench.store.create(SERVICE, {"metadata": {"name": "my-db"}, "spec": {"ports": [{"port": 5432, "name": "sql"}]}})
    env: list[Object] = [
        {"name": "PLAIN", "value": "a b"},
        {"name": "TWICE", "value": "$(PLAIN)$(PLAIN) $(LATER) $$(PLAIN)"},
        {"name": "LATER", "value": "z"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "nope", "key": "k", "optional": True}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    limits = {"limits": {"memory": "64Mi"}}
    bench.pod(
        shell(
            "env; exec sleep 1000", env=env, envFrom=[{"prefix": "C_", "configMapRef": {"name": "c"}}], resources=limits
        ),
        labels={"app": "x"},
    )
    pod = await bench.until_ready()
    found = dict(line.split("=", 1) for line in (await bench.until_logged("PWD=")).splitlines())
    await trio.sleep(0.05)
    found = dict(line.split("=", 1) for line in (await bench.log()).splitlines())
    assert found["TWICE"] == "a ba b $(LATER) $(PLAIN)"
    assert (found["POD"], found["LABEL"], found["SECRET"], found["C_ONE"]) == ("pod", "x", "value", "1")
    assert found["ADDRESS"] == found["VANADIUM_POD_IP"] == pod["status"]["podIP"]
    assert found["MEMORY"] == "64"
    assert found["MY_DB_SERVICE_PORT_SQL"] == "5432"
    assert found["MY_DB_PORT_5432_TCP_ADDR"] == found["MY_DB_SERVICE_HOST"]
    assert "NONE" not in found
    assert found["HOME"] != os.environ["HOME"]
    assert found["TMPDIR"].startswith(found["HOME"])


async def test_a_secret_that_comes_later(bench: Bench) -> None:
    """A container waits for what its environment refers to, and starts when it is there."""
    bench.pod(
        shell("echo $X; exec sleep 1000", env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])
    )
    status = await bench.until_waiting("CreateContainerConfigError")
    assert status["state"]["waiting"]["message"] == 'secret "s" not found'
    bench.store.create(SECRET, {"metadata": {"name": "s"}, "stringData": {"k": "here"}})
    await bench.until_ready()
    assert await bench.until_logged("here") == "here\n"


async def test_volumes_made_of_objects(bench: Bench) -> None:
    """Secrets, config maps, fields and projections are files, at the paths and with the modes asked for."""
    bench.store.create(SECRET, {"metadata": {"name": "s"}, "stringData": {"key": "hidden", "other": "o"}})
    bench.store.create(CONFIG_MAP, {"metadata": {"name": "c"}, "data": {"conf": "text"}})
    names = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    projected = [{"secret": {"name": "s"}}, {"configMap": {"name": "c"}}, {"downwardAPI": {"items": [names]}}]
    mounts = [{"name": name, "mountPath": f"/mnt/{name}"} for name in ("s", "c", "all")]
    bench.pod(
        shell(
            "stat -Lc %a /mnt/s/deep/file; cat /mnt/s/deep/file /mnt/c/conf /mnt/all/key /mnt/all/name; ls /mnt/s; exec sleep 1000",
            volumeMounts=mounts,
        ),
        volumes=[
            {"name": "s", "secret": {"secretName": "s", "items": [{"key": "key", "path": "deep/file", "mode": 0o440}]}},
            {"name": "c", "configMap": {"name": "c"}},
            {"name": "all", "projected": {"sources": projected}},
        ],
    )
    await bench.until_ready()
    assert await bench.until_logged("deep\n") == "400\nhiddentexthiddenpoddeep\n"


async def test_a_secret_volume_follows_its_secret(bench: Bench) -> None:
    """When a Secret changes, so do the files made of it."""
    bench.store.create(SECRET, {"metadata": {"name": "s"}, "stringData": {"key": "old"}})
    script = "cat /s/key; echo; until grep -q new /s/key; do sleep 0.02; done; cat /s/key; echo; exec sleep 1000"
    bench.pod(
        shell(script, volumeMounts=[{"name": "s", "mountPath": "/s"}]),
        volumes=[{"name": "s", "secret": {"secretName": "s"}}],
    )
    await bench.until_logged("old")
    bench.store.modify(SECRET, "default", "s", lambda obj: obj.update(data={"key": "bmV3"}))
    await bench.until_logged("new")


async def test_labels_in_files_follow_the_pod(bench: Bench) -> None:
    """A downward API volume shows the labels that the pod has now."""
    bench.pod(
        shell(
            "until grep -q new /f/labels; do sleep 0.02; done; cat /f/labels; echo; exec sleep 1000",
            volumeMounts=[{"name": "f", "mountPath": "/f"}],
        ),
        volumes=[
            {"name": "f", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
        ],
        labels={"state": "old"},
    )
    await bench.until_ready()
    bench.store.modify(POD, "default", "pod", lambda pod: pod["metadata"].update(labels={"state": "new"}))
    assert await bench.until_logged("new") == 'state="new"\n'


async def test_a_volume_waits_for_its_secret(bench: Bench) -> None:
    """A pod whose Secret is not there waits in ContainerCreating, says why, and goes on when it comes."""
    bench.pod(
        shell("exec sleep 1000", volumeMounts=[{"name": "s", "mountPath": "/s"}]),
        volumes=[{"name": "s", "secret": {"secretName": "s"}}],
    )
    await bench.until_waiting("ContainerCreating")
    await trio.sleep(0.05)
    assert bench.messages("FailedMount") == ['MountVolume.SetUp failed for volume "s" : secret "s" not found']
    bench.store.create(SECRET, {"metadata": {"name": "s"}, "stringData": {"key": "v"}})
    await bench.until_ready()


async def test_readiness_comes_and_goes(clock: MockClock, bench: Bench) -> None:
    """A readiness probe decides whether a running pod is ready."""
    probe = {"exec": {"command": ["test", "-f", "/t/ok"]}, "periodSeconds": 10, "failureThreshold": 1}
    bench.pod(
        shell(
            "sleep 0.2; touch /t/ok; echo $PWD; exec sleep 1000",
            readinessProbe=probe,
            volumeMounts=[{"name": "t", "mountPath": "/t"}],
        ),
        volumes=[{"name": "t", "emptyDir": {}}],
    )
    pod = await bench.until_ready()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    next((bench.root / "p").glob("*/0/ok")).unlink()
    clock.jump(10)
    await bench.until(lambda p: conditions(p).get("Ready") == "False")
    assert any("Readiness probe failed" in text for text in bench.messages("Unhealthy"))


async def test_a_failed_liveness_probe_restarts(clock: MockClock, bench: Bench) -> None:
    """A container that no longer lives is ended and started again."""
    probe = {"exec": {"command": ["test", "-f", "/t/ok"]}, "periodSeconds": 5, "failureThreshold": 2}
    bench.pod(
        shell(
            "touch /t/ok; echo up; exec sleep 1000",
            livenessProbe=probe,
            volumeMounts=[{"name": "t", "mountPath": "/t"}],
        ),
        volumes=[{"name": "t", "emptyDir": {}}],
    )
    await bench.until_logged("up")
    next((bench.root / "p").glob("*/0/ok")).unlink()
    for _ in range(3):
        clock.jump(5)
        await trio.sleep(0.1)
    await bench.until(lambda p: restarts(p) == 1 and "running" in state(p))
    assert bench.messages("Killing") == ["Container app failed liveness probe, will be restarted"]


async def test_a_failed_startup_probe_restarts(clock: MockClock, bench: Bench) -> None:
    """Failures count once per period, however often the probe was tried in between."""
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 5, "failureThreshold": 2}
    bench.pod(container(startupProbe=probe))
    await bench.until(lambda p: "running" in state(p))
    await trio.sleep(0.5)
    assert bench.messages("Unhealthy") == []
    for _ in range(4):
        clock.jump(5)
        await trio.sleep(0.1)
    await bench.until(lambda p: restarts(p) >= 1)


async def test_network_probes(bench: Bench) -> None:
    """A server is ready when it answers over HTTP, and alive when it accepts connections."""
    server = (
        "import os,http.server as h; h.test(h.SimpleHTTPRequestHandler, bind=os.environ['VANADIUM_POD_IP'], port=8080)"
    )
    bench.pod(
        container(
            command=["python3", "-c", server],
            ports=[{"name": "web", "containerPort": 8080}],
            readinessProbe={"httpGet": {"path": "/", "port": "web"}},
            startupProbe={"tcpSocket": {"port": 8080}},
        )
    )
    pod = await bench.until_ready()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_hooks(bench: Bench) -> None:
    """A start hook runs after the start, a stop hook before SIGTERM."""
    mounts: dict[str, Any] = {"volumeMounts": [{"name": "d", "mountPath": "/d"}]}
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started >> /d/hooks"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >> /d/hooks"]}},
    }
    script = "trap 'echo term >> /d/hooks; exit 0' TERM; while :; do sleep 0.02; done"
    bench.pod(
        shell(script, lifecycle=hooks, **mounts), volumes=[{"name": "d", "gcePersistentDisk": {"pdName": "disk"}}]
    )
    await bench.until_ready()
    bench.store.delete(POD, "default", "pod")
    await bench.until_gone()
    assert (bench.root / "disks" / "pd-disk" / "hooks").read_text() == "started\nstopping\nterm\n"


async def test_logs_are_followed_to_the_end_and_cut(bench: Bench) -> None:
    """Readers get the last lines, times, and what is still to come until the container has ended."""
    bench.pod(shell("for i in 1 2 3; do echo line $i; done; sleep 0.3; printf 'no end'; exit 0"), restartPolicy="Never")
    await bench.until(lambda p: "running" in state(p))
    assert await bench.until_logged("line 3")
    followed = await bench.log(follow=True)
    assert followed == "line 1\nline 2\nline 3\nno end"
    assert await bench.log(tail_lines=2) == "line 3\nno end"
    stamped = (await bench.log(timestamps=True)).splitlines()
    assert stamped[0].startswith("2026-11-23T10:0")
    assert stamped[0].endswith("Z line 1")


async def test_pods_for_other_nodes_wait(bench: Bench) -> None:
    """A pod that asks for a kind of node that this is not stays pending, and says why."""
    bench.pod(container(), nodeSelector={"disk": "ssd"})
    pod = await bench.until(lambda p: conditions(p).get("PodScheduled") == "False")
    assert "nodeName" not in pod["spec"]
    await trio.sleep(0.05)
    assert bench.reasons() == ["FailedScheduling"]


async def test_a_variable_that_no_process_can_have(bench: Bench) -> None:
    """A NUL byte in a Secret is the container's fault, not the machine's."""
    bench.store.create(SECRET, {"metadata": {"name": "s"}, "data": {"k": "YQBi"}})
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    bench.pod(container(env=[{"name": "X", "valueFrom": source}]))
    await bench.until_waiting("RunContainerError")
    assert "invalid argument" in (await bench.until_event("Failed"))["message"]


async def test_probes_that_make_no_sense_only_fail(bench: Bench) -> None:
    """The containers run on, and are not ready."""
    actions: list[Object] = [
        {"httpGet": {"port": 80, "path": "/\0"}},
        {"httpGet": {"port": 80, "host": "\u2028"}},
        {"httpGet": {"port": 80, "httpHeaders": [{"name": "X-Name", "value": "\u20ac"}]}},
        {"tcpSocket": {"port": 80, "host": "a\0b"}},
        {"tcpSocket": {"port": "nope"}},
        {"exec": {"command": ["a\0b"]}},
        {"exec": {"command": ["no-such-program"]}},
    ]
    bench.pod(*(container(f"c{n}", readinessProbe={**a, "periodSeconds": 1}) for n, a in enumerate(actions)))
    for number in range(len(actions)):
        path = f"spec.containers{{c{number}}}"
        await bench.until_any(partial(_is_unhealthy, path), EVENT)
    pod = bench.store.get(POD, "default", "pod")
    assert pod["status"]["phase"] == "Running"
    assert conditions(pod)["Ready"] == "False"


async def test_no_time_to_end_is_a_time(bench: Bench) -> None:
    """A grace period of 0 does not mean the default."""
    stubborn = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    bench.pod(shell(stubborn), restartPolicy="Never", terminationGracePeriodSeconds=0, activeDeadlineSeconds=1)
    with trio.fail_after(10):
        await bench.until(lambda p: "terminated" in state(p))


async def test_a_volume_that_cannot_be_refreshed_does_not_end_its_pods(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told as an event; the containers keep the old files and go on."""
    bench.store.create(SECRET, {"metadata": {"name": "s"}, "stringData": {"key": "old"}})
    bench.pod(
        shell("exec sleep 1000", volumeMounts=[{"name": "s", "mountPath": "/s"}]),
        volumes=[{"name": "s", "secret": {"secretName": "s"}}],
    )
    await bench.until_ready()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vanadium_node.local.machine.volumes.write_together", full)
    bench.store.modify(SECRET, "default", "s", lambda obj: obj.update(data={"key": "bmV3"}))
    assert "No space left" in (await bench.until_event("FailedMount"))["message"]
    assert bench.store.get(POD, "default", "pod")["status"]["phase"] == "Running"


async def test_a_part_of_a_volume_named_by_a_variable(bench: Bench) -> None:
    """`subPathExpr` gives each pod its own part of a disk."""
    mount = {"name": "d", "mountPath": "/d", "subPathExpr": "logs/$(NAME)"}
    name = {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    bench.pod(
        shell("echo hi > /d/file; echo done; exec sleep 1000", env=[name], volumeMounts=[mount]),
        volumes=[{"name": "d", "gcePersistentDisk": {"pdName": "disk"}}],
    )
    await bench.until_logged("done")
    assert (bench.root / "disks" / "pd-disk" / "logs" / "pod" / "file").read_text() == "hi\n"


async def test_systems_without_process_handles(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no pidfd_open, a thread waits for each process."""
    monkeypatch.delattr(os, "pidfd_open")
    bench.pod(shell("echo $$$$; exec sleep 1000"))
    process = int((await bench.until_logged("\n")).strip())
    os.kill(process, signal.SIGKILL)
    await bench.until(lambda p: restarts(p) == 1 and "running" in state(p))
    bench.store.delete(POD, "default", "pod")
    await bench.until_gone()


def _is_unhealthy(path: str, event: Object) -> bool:
    return bool(event["reason"] == "Unhealthy" and event["involvedObject"]["fieldPath"] == path)


async def _until_dead(pid: int) -> None:
    """Wait until a process that is not our child has ended, reaped or not."""
    with trio.fail_after(5):
        while _is_alive(pid):  # noqa: ASYNC110 - its end sends us no event
            await trio.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _claim() -> Object:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
