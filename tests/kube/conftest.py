"""Shared fixtures: a real API server, and manifests to work on."""

from typing import Any

import pytest


@pytest.fixture
def deployment() -> dict[str, Any]:
    """The walkthrough's Deployment, in today's form."""
    container = {
        "name": "fortuned",
        "image": "gcr.io/my-project/fortuned:1",
        "command": ["fortuned", "--v23.tcp.address=:2345"],
        "ports": [{"containerPort": 2345, "protocol": "TCP"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "fortuned"},
        "spec": {
            "selector": {"matchLabels": {"application": "fortuned"}},
            "template": {"metadata": {"labels": {"application": "fortuned"}}, "spec": {"containers": [container]}},
        },
    }
