"""Which cluster a command is for, and running kubectl on it; gcloud and kubectl are programs that note what they are told."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from stand_ins import calls, program, run_cli

from vanadium_node.controller.access import Choice, Target, chosen_cluster, run_kubectl
from vanadium_node.controller.settings import Settings
from vanadium_node.errors import ConfigurationError, InputError
from vanadium_node.kube.kubeconfig import ClusterAccess

KUBECONFIG = {
    "current-context": "one",
    "clusters": [{"name": "one", "cluster": {"server": "https://one.example.org"}}],
    "users": [{"name": "one", "user": {"token": "t"}}],
    "contexts": [
        {"name": "one", "context": {"cluster": "one", "user": "one", "namespace": "shop"}},
        {"name": "two", "context": {"cluster": "one", "user": "one"}},
    ],
}
NAMED = {"project": "p", "zone": "z", "cluster": "c"}


def settings(**more: str) -> Settings:
    """Settings that may name a GKE cluster."""
    agent = {"image": "i", "blessing": "a:b", "admin": "a"}
    return Settings.from_document({**more, "clusterAgent": agent, "podAgent": {"image": "p"}}, "vkube.cfg")


def gcloud(folder: Path) -> str:
    return program(folder, "gcloud", f"open(os.environ['KUBECONFIG'], 'w').write({json.dumps(KUBECONFIG)!r})")


def silent(line: str) -> None:
    """Take a report."""


async def target_of(choice: Choice, given: Settings | None) -> Target:
    async with chosen_cluster(choice, given, silent) as target:
        return target


async def test_gcloud_fetches_what_the_settings_name(tmp_path: Path) -> None:
    """Into a private temporary file that is gone afterwards; kubectl is led to the same one."""
    choice = Choice(gcloud=gcloud(tmp_path))
    async with chosen_cluster(choice, settings(**NAMED), silent) as target:
        assert (target.access.server, target.access.namespace) == ("https://one.example.org", "shop")
        kubeconfig = trio.Path(target.environment["KUBECONFIG"])
        assert (await kubeconfig.parent.stat()).st_mode & 0o077 == 0
        assert await kubeconfig.exists()
    assert not await kubeconfig.exists()
    [(arguments, _)] = calls(tmp_path)
    assert arguments == ["container", "clusters", "get-credentials", "c", "--project", "p", "--zone", "z"]


@pytest.mark.parametrize(
    ("choice", "given"),
    [
        (Choice(), settings()),
        (Choice(), None),
        (Choice(credentials_from_gcloud=False), settings(**NAMED)),
        (Choice(context="one"), settings(**NAMED)),
    ],
)
async def test_otherwise_the_usual_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: Choice, given: Settings | None
) -> None:
    """Without a GKE cluster in the settings, or with another one named, gcloud is not asked."""
    (tmp_path / "config").write_text(json.dumps(KUBECONFIG))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    target = await target_of(choice, given)
    assert target.access.server == "https://one.example.org"
    assert "KUBECONFIG" not in target.environment


async def test_a_kubeconfig_a_context_and_a_namespace(tmp_path: Path) -> None:
    """What was named counts here and for kubectl."""
    path = tmp_path / "config"
    path.write_text(json.dumps(KUBECONFIG))
    target = await target_of(Choice(kubeconfig=path, context="two", namespace="mine"), settings(**NAMED))
    assert (target.access.context, target.access.namespace) == ("two", "mine")
    assert target.environment == {"KUBECONFIG": str(path)}
    assert target.arguments == ("--context=two", "--namespace=mine")


@pytest.mark.parametrize(
    ("choice", "given", "says"),
    [
        (
            Choice(gcloud="/no/such/gcloud"),
            settings(**NAMED),
            "not installed or cannot be run; install it from cloud.google.com",
        ),
        (Choice(credentials_from_gcloud=True), settings(), "does not name 'project', 'zone' and 'cluster'"),
        (Choice(credentials_from_gcloud=True), None, "does not name 'project', 'zone' and 'cluster'"),
        (Choice(local=True, context="x"), None, "name two clusters"),
        (Choice(kubeconfig=Path("/no/such/file")), None, "there is no kubeconfig file '/no/such/file'"),
    ],
)
async def test_what_cannot_be_chosen(choice: Choice, given: Settings | None, says: str) -> None:
    """One sentence, with the ways that are open."""
    with pytest.raises(ConfigurationError) as caught:
        await target_of(choice, given)
    assert says in str(caught.value)
    assert caught.value.hint


async def test_gcloud_that_fails(tmp_path: Path) -> None:
    """Its own words are passed on, on one line."""
    failing = program(tmp_path, "gcloud", "sys.exit('no\\nsuch cluster')")
    with pytest.raises(ConfigurationError, match=r"gcloud could not fetch .*'c': no\\nsuch cluster; log in"):
        await target_of(Choice(gcloud=failing), settings(**NAMED))


@pytest.mark.parametrize(("body", "status"), [("", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), 15)", 143)])
async def test_kubectl_gets_everything_and_its_status_is_passed_on(tmp_path: Path, body: str, status: int) -> None:
    """The cluster's arguments come first, so that the user's own win."""
    environment: Mapping[str, str] = {"KUBECONFIG": "/k"}
    access = ClusterAccess(server="https://x")
    target = Target(access=access, environment=environment, arguments=("--context=c",))
    kubectl = program(tmp_path, "kubectl", body)
    assert await run_kubectl(target, kubectl, ("get", "pods", "--template", "{{.x}}")) == status
    assert calls(tmp_path) == [(["--context=c", "get", "pods", "--template", "{{.x}}"], "/k")]


async def test_no_kubectl() -> None:
    """How to get one."""
    target = Target(access=ClusterAccess(server="https://x"))
    with pytest.raises(InputError, match=r"cannot run '/no/kubectl'.*install kubectl"):
        await run_kubectl(target, "/no/kubectl", ("get",))


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "pods", "-n", "x", "--template", "{{range .items}}{{.x}}{{end}}"),
        ("-n", "x", "exec", "-it", "pod", "--", "ls", "-l"),
        ("--help",),
        ("get", "--help"),
        ("version", "--client=true", "-o", "json"),
    ],
)
@pytest.mark.parametrize("dashes", [(), ("--",)])
def test_the_kubectl_command_takes_all_that_follows(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    dashes: tuple[str, ...],
) -> None:
    """Options of kubectl are none of ours, with or without the dashes; no settings file is needed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").write_text(json.dumps(KUBECONFIG))
    kubectl = program(tmp_path, "kubectl", "sys.exit(3)")
    given = ("--kubeconfig", str(tmp_path / "config"), "--kubectl", kubectl, "kubectl", *dashes, *arguments)
    assert run_cli(capfd, *given)[0] == 3
    assert calls(tmp_path) == [(list(arguments), str(tmp_path / "config"))]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("start", "-f", "d.json"), 2, "Give either EXTENSION or --noblessings"),
        (("start", "-f", "d.json", "x", "--noblessings"), 2, "Give either EXTENSION or --noblessings"),
        (("start", "x"), 2, "'-f'"),
        (
            ("start", "-f", "none.json", "x"),
            1,
            "cannot read 'none.json': No such file or directory; check the file given with -f",
        ),
        (("update", "-f", "d.json", "--base-blessings", "x"), 2, "--base-blessings needs an EXTENSION"),
        (("update", "-f", "d.json", "--wait-timeout", "soon"), 2, "'soon' is not a duration"),
        (("update-config",), 2, "Give --cluster-agent-image"),
        (("stop", "-f", "d.json"), 1, "there is no configuration file 'vkube.cfg'"),
        (("--config", "x.cfg", "kubectl", "get"), 1, "there is no configuration file 'x.cfg'"),
    ],
)
def test_wrong_usage(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    """Exit status 2 for a command line that makes no sense, 1 for what is wrong outside; one sentence on standard error."""
    monkeypatch.chdir(tmp_path)
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"template": template},
    }
    deployment["spec"] = {"template": template, "selector": {"matchLabels": {"a": "b"}}}
    (tmp_path / "d.json").write_text(json.dumps(deployment))
    code, out, err = run_cli(capfd, *arguments)
    assert (code, out) == (status, "")
    assert says in err
    assert err.startswith("vanadium-node: ")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["d.json"]


def test_update_config_prints_what_is_in_force(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`:TAG` for one image, a whole name for the other."""
    monkeypatch.chdir(tmp_path)
    agent = {"image": "gcr.io/p/cluster-agent:latest", "blessing": "a:b", "admin": "a"}
    (tmp_path / "vkube.cfg").write_text(json.dumps({"clusterAgent": agent, "podAgent": {"image": "p"}}))
    given = ("update-config", "--cluster-agent-image", ":2", "--pod-agent-image", "q:3")
    assert run_cli(capfd, *given) == (0, "clusterAgent.image: gcr.io/p/cluster-agent:2\npodAgent.image: q:3\n", "")
