"""What `doctor` finds: each precondition as it holds and as it does not, on a real API server and on the embedded one."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from agent_parties import START, bless, blessed, new_root
from stand_ins import ControllerProcess

from vanadium_node.controller.applications import Applications
from vanadium_node.controller.doctor import Check, check_principal, check_site
from vanadium_node.controller.objects import secret
from vanadium_node.controller.permissions import NEEDED, in_words, missing
from vanadium_node.controller.settings import Settings
from vanadium_node.controller.site import Site
from vanadium_node.controller.targets import Identity
from vanadium_node.kube.client import KubeClient, open_client
from vanadium_node.kube.kubeconfig import User
from vanadium_node.kube.resources import NAMESPACE, SECRET, Resource
from vanadium_node.security.caveat import Caveat

ROLE = Path(__file__).parents[2] / "configs" / "kubernetes" / "controller" / "role.yaml"


async def checks(site: Site, agent: Any) -> Mapping[str, Check]:
    """The checks by their names, without the namespace in these."""
    found: list[Check] = []
    await check_site(site, agent, site.client.namespace, found.append)
    return {check.name.removesuffix(f" '{site.client.namespace}'"): check for check in found}


@pytest.fixture
def site(site: Site, client: KubeClient) -> Site:
    """Cluster agent and applications in one namespace."""
    agent = replace(site.settings.cluster_agent, namespace=client.namespace)
    return replace(site, settings=replace(site.settings, cluster_agent=agent))


async def test_all_is_well(site: Site, agent: Any, deployment: dict[str, Any]) -> None:
    """Each check says what it saw."""
    found = await checks(site, agent)
    assert list(found) == [
        "API server",
        "clock",
        "permissions in namespace",
        "Pod Security of namespace",
        "cluster agent",
        "applications in namespace",
        "orphans in namespace",
    ]
    assert all(check.is_good and check.seen and not check.next_step for check in found.values()), found
    assert found["clock"].seen == "this machine and the API server agree on the time"


def test_the_rights_are_those_of_the_role() -> None:
    """One list of what the controller needs, in two forms."""
    rules = yaml.safe_load(ROLE.read_text())["rules"]
    role = {(v, g, r) for rule in rules for v in rule["verbs"] for g in rule["apiGroups"] for r in rule["resources"]}
    assert {(right.verb, right.group, right.resource) for right in NEEDED} == role


@pytest.mark.kubernetes
async def test_missing_permissions(site: Site, agent: Any, client: KubeClient) -> None:
    """A service account that may only read Deployments is told all that is missing, and the rest is checked as far as it goes."""
    space, rbac, meta = client.namespace, "rbac.authorization.k8s.io/v1", {"metadata": {"name": "reader"}}
    accounts = Resource(api_version="v1", kind="ServiceAccount", plural="serviceaccounts")
    await client.create(accounts, space, {"apiVersion": "v1", "kind": "ServiceAccount", **meta})
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]}]
    role = {"apiVersion": rbac, "kind": "Role", **meta, "rules": rules}
    await client.create(Resource(api_version=rbac, kind="Role", plural="roles"), space, role)
    binding = {
        "apiVersion": rbac,
        "kind": "RoleBinding",
        **meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": space}],
    }
    await client.create(Resource(api_version=rbac, kind="RoleBinding", plural="rolebindings"), space, binding)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    path = accounts.path(space, "reader", "token")
    answer = await client.request("POST", path, body=request, doing="ask for a token")
    async with open_client(replace(client.access, user=User(token=answer["status"]["token"]))) as reader:
        refused = await missing(reader, space)
        assert {(r.verb, r.resource) for r in NEEDED} - {(r.verb, r.resource) for r in refused} == {
            ("get", "deployments"),
            ("list", "deployments"),
        }
        found = await checks(replace(site, client=reader), agent)
    permissions = found["permissions in namespace"]
    assert not permissions.is_good
    assert "secrets (get, list, create, delete)" in permissions.seen
    assert "pods/log (get)" in permissions.seen
    assert "configs/kubernetes/controller" in permissions.next_step
    assert found["Pod Security of namespace"].is_good
    assert not found["orphans in namespace"].is_good


def test_rights_in_words() -> None:
    """Grouped by what they are to."""
    assert in_words(NEEDED[:2]) == "deployments (get, list)"


@pytest.mark.parametrize(
    ("level", "disk", "is_good", "says"),
    [
        ("restricted", None, True, "the level is 'restricted', which the pod agent passes"),
        ("restricted", "disk", False, "does not admit the 'persistentDisk'"),
        ("baseline", "disk", True, "the level is 'baseline'"),
        ("strict", None, False, "the level 'strict' is none"),
    ],
)
async def test_pod_security(
    site: Site, agent: Any, client: KubeClient, level: str, disk: str | None, is_good: bool, says: str
) -> None:
    """The namespace's label, and what of ours it would refuse."""
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}
    await client.patch(NAMESPACE, None, client.namespace, labels)
    ours = replace(site.settings.cluster_agent, persistent_disk=disk, persistent_volume_claim=None)
    check = (await checks(replace(site, settings=replace(site.settings, cluster_agent=ours)), agent))[
        "Pod Security of namespace"
    ]
    assert check.is_good is is_good
    assert says in check.seen
    assert bool(check.next_step) is not is_good


async def test_a_namespace_that_is_not_there(site: Site, agent: Any) -> None:
    """How to make it."""
    agent_settings = replace(site.settings.cluster_agent, namespace="no-such-namespace")
    elsewhere = replace(site, settings=replace(site.settings, cluster_agent=agent_settings))
    found = await checks(elsewhere, agent)
    check = found["Pod Security of namespace 'no-such-namespace'"]
    assert (check.is_good, check.next_step) == (False, "make it with 'kubectl create namespace no-such-namespace'")


async def test_orphans_and_broken_applications(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gc would remove, and what status says is wrong."""
    monkeypatch.setattr("vanadium_node.controller.doctor.GRACE", timedelta(0))
    await Applications(site=site, agent=agent).start(
        client.namespace, [deployment], Identity(extension="app", root_blessings="r")
    )
    await client.create(SECRET, client.namespace, secret("secret-9", "gone", "key"))
    agent.known.clear()
    found = await checks(site, agent)
    assert found["orphans in namespace"].seen == "nothing uses secret-9 of gone"
    assert "gc" in found["orphans in namespace"].next_step
    applications = found["applications in namespace"]
    assert not applications.is_good
    assert applications.seen.startswith("Deployment/fortuned: ")


async def test_an_agent_that_is_away(site: Site, agent: Any) -> None:
    """The reason and the step are those of the attempt."""
    agent.is_away = True
    check = (await checks(site, agent))["cluster agent"]
    assert (check.is_good, check.next_step) == (False, "see whether it runs")
    assert "unreachable: the cluster agent does not answer" in check.seen


async def test_a_clock_that_is_wrong(site: Site, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In which direction, and what it does."""

    async def ahead(_: object) -> timedelta:
        return timedelta(seconds=-95)

    monkeypatch.setattr(KubeClient, "clock_ahead", ahead)
    check = (await checks(site, agent))["clock"]
    assert not check.is_good
    assert check.seen.startswith("this machine is 95 s behind the API server")


async def test_a_cluster_that_is_away(site: Site, agent: Any) -> None:
    """One check, and nothing that depends on it."""
    access = replace(site.client.access, server="https://127.0.0.1:1")
    async with open_client(access) as nobody:
        found = await checks(replace(site, client=nobody), agent)
    assert list(found) == ["API server"]
    assert not found["API server"].is_good


async def test_credentials(settings: Settings) -> None:
    """The owner's, somebody else's, and some that are over."""
    root = await new_root("test-root")
    assert check_principal(root, settings, START).is_good
    other = await new_root("other")
    refused = check_principal(other, settings, START)
    assert "extends 'test-root', and this principal is 'other'" in refused.seen
    me = replace(settings, cluster_agent=replace(settings.cluster_agent, blessing="test-root:me:agent"))
    mine = await blessed(root, "me")
    mine.store = mine.store.with_default(await bless(root, mine, "me", Caveat.expiry(START)))
    late = check_principal(mine, me, START + timedelta(seconds=1))
    assert not late.is_good
    assert "expired at" in late.seen


async def test_as_a_user(cli: ControllerProcess) -> None:
    """Exit status 1 when something is ✗, with what to do in the line below; the same facts as JSON."""
    shown = await cli("doctor")
    assert shown.returncode == 1
    lines = shown.stdout.splitlines()
    assert lines[0] == "✓ configuration: 'vkube.cfg' is in order"
    assert lines[1].startswith("✗ credentials: this program has no principal")
    assert lines[2].startswith("    → ")
    as_json = await cli("doctor", "-o", "json")
    assert as_json.returncode == 1
    found = {check["name"]: check for check in json.loads(as_json.stdout)}
    assert found["clock"]["ok"] is True
    assert found["credentials"]["ok"] is False
    assert found["credentials"]["nextStep"]
    (cli.folder / "vkube.cfg").write_text("{}")
    broken = await cli("doctor")
    assert (broken.returncode, broken.stdout.count("✗"), broken.stdout.count("✓")) == (1, 1, 0)
