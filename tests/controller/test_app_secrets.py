"""Secrets that nobody uses any more are found, and those in use or just made are left alone."""

from datetime import timedelta
from typing import Any

from until import until

from vanadium_node.controller.app_secrets import AppSecrets
from vanadium_node.controller.applications import Applications
from vanadium_node.controller.objects import secret
from vanadium_node.controller.site import Site
from vanadium_node.controller.targets import Identity
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import DEPLOYMENT, SECRET, name_of

NOW = timedelta(0)


async def test_only_what_no_deployment_uses_is_unused(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """One in use, one left by a Deployment deleted by hand, one just made, and one of somebody else."""
    space = client.namespace
    app_secrets = AppSecrets(site=site, agent=agent)
    applications = Applications(site=site, agent=agent)
    await applications.start(space, [deployment], Identity(extension="a", root_blessings="r"))
    assert await app_secrets.unused(space, older_than=NOW) == []
    other = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}}
    await client.create(SECRET, space, other)
    await client.delete(DEPLOYMENT, space, "fortuned")
    [left] = await until(lambda: app_secrets.unused(space, older_than=NOW))  # once the pods that used it have ended
    assert await app_secrets.unused(space, older_than=timedelta(minutes=10)) == []
    await app_secrets.forget(space, left)
    assert agent.known == {}
    assert await app_secrets.unused(space, older_than=NOW) == []
    assert await client.find(SECRET, space, "theirs") is not None


async def test_a_secret_without_a_key_can_be_removed_too(site: Site, agent: Any, client: KubeClient) -> None:
    """Somebody emptied it by hand: there is nothing to forget, and it goes."""
    space = client.namespace
    await client.create(SECRET, space, {**secret("secret-1", "cart", "k"), "data": {}})
    app_secrets = AppSecrets(site=site, agent=agent)
    [left] = await app_secrets.of(space, "Deployment", "cart")
    assert name_of(left) == "secret-1"
    await app_secrets.forget(space, left)
    assert await client.find(SECRET, space, "secret-1") is None
