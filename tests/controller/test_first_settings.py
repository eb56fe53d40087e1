"""A first settings file: what it takes from a cluster and a principal, and the formats it is written in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stand_ins import run_cli

from vanadium_node.controller.administration import Administration
from vanadium_node.controller.first_settings import Findings, ask, document, write_first
from vanadium_node.controller.settings import Settings
from vanadium_node.controller.site import Site
from vanadium_node.errors import ConfigurationError, InputError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import CLAIM

NEW = Findings(namespace="shop", context="kind-test")


def made(found: Findings) -> dict[str, Any]:
    return document(found, caller="root:me", image="r/v:1")


def test_for_a_new_agent() -> None:
    """The caller is its owner, and it is off the internet unless a cloud has an address for it."""
    settings = Settings.from_document(made(NEW), "x")
    agent = settings.cluster_agent
    assert (agent.namespace, agent.blessing, agent.admin) == ("shop", "root:me:cluster-agent", ("root:me",))
    assert (agent.image, settings.pod_agent.image, agent.internal_only) == ("r/v:1", "r/v:1", True)
    assert agent.persistent_volume_claim is None
    assert Settings.from_document(made(replace(NEW, has_cloud=True)), "x").cluster_agent.internal_only is False
    claimed = Settings.from_document(made(replace(NEW, claims=("other", "cluster-agent"))), "x")
    assert claimed.cluster_agent.persistent_volume_claim == "cluster-agent"


def test_a_context_of_gke() -> None:
    """gcloud's own contexts say where the cluster is, so that its credentials can be fetched."""
    settings = Settings.from_document(made(replace(NEW, context="gke_my-project_europe-west1-b_my_cluster")), "x")
    assert (settings.project, settings.zone, settings.cluster) == ("my-project", "europe-west1-b", "my_cluster")


async def test_of_an_agent_that_runs(site: Site, settings: Settings, client: KubeClient) -> None:
    """Another operator's file is made anew from the cluster; its quantities come back as the server writes them."""
    agent = replace(settings.cluster_agent, namespace=client.namespace, internal_only=True, admin=("root:a", "root:b"))
    running = replace(site, settings=replace(settings, cluster_agent=agent))
    await Administration(site=running).start(root_blessings="r", claimer="root:me:$")
    found = await ask(client)
    again = Settings.from_document(document(found, caller="test-root", image="other"), "x")
    assert again.cluster_agent in {agent, replace(agent, cpu="100m")}
    assert again.pod_agent.image == agent.image


async def test_a_cluster_without_an_agent(client: KubeClient) -> None:
    """A claim that is there is used."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "cluster-agent"}, "spec": spec}
    await client.create(CLAIM, client.namespace, claim)
    found = await ask(client)
    assert (found.namespace, found.claims) == (client.namespace, ("cluster-agent",))
    assert not found.has_cloud


@pytest.mark.parametrize("name", ["v.cfg", "v.json", "v.yaml", "v.yml", "v.toml"])
def test_formats(tmp_path: Path, name: str) -> None:
    """Each is read back as it was meant, texts that look like numbers included."""
    content = made(replace(NEW, context="gke_p_z_1"))
    content["clusterAgent"]["admin"] = 'root:"ü\\'
    with pytest.raises(ConfigurationError):
        write_first(tmp_path / name, {**content, "clusterAgent": {}}, overwrite=False)
    assert not list(tmp_path.iterdir())
    settings = write_first(tmp_path / name, content, overwrite=False)
    assert Settings.from_file(tmp_path / name) == settings == Settings.from_document(content, "x")
    with pytest.raises(InputError, match=r"is there already; .*--force"):
        write_first(tmp_path / name, content, overwrite=False)
    write_first(tmp_path / name, content, overwrite=True)


def test_as_a_user(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, embedded_kubeconfig: Path
) -> None:
    """Ready for start-cluster-agent; nothing is asked when the file would be lost."""
    from vanadium_node.__main__ import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["principal", "create", "--with-passphrase=false", "me", "root"])
    given = ("--kubeconfig", str(embedded_kubeconfig), "--credentials", "me", "config", "init")
    capfd.readouterr()
    status, printed, said = run_cli(capfd, *given)
    assert (status, printed) == (
        0,
        "'vkube.cfg' is written: the cluster agent 'root:cluster-agent' in namespace 'default'.\n",
    )
    assert "Correct the images" in said
    assert json.loads((tmp_path / "vkube.cfg").read_text())["clusterAgent"]["admin"] == "root"
    status, _, said = run_cli(capfd, "--kubeconfig", "/none", "config", "init")
    assert (status, said) == (
        1,
        "vanadium-node: 'vkube.cfg' is there already; name another file with --config, or use --force\n",
    )
