"""An API server for a test: in process, on a database of its own, with one CRD."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.server.inprocess import LocalClient


@pytest.fixture
def definition() -> dict[str, Any]:
    """Two served versions, status and scale, a default and a bound."""
    number = {"type": "integer", "default": 1, "minimum": 0, "description": "How many."}
    spec = {"type": "object", "properties": {"replicas": number, "color": {"type": "string"}}}
    shape = {
        "type": "object",
        "properties": {
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    versions = [
        {
            "name": name,
            "served": True,
            "storage": name == "v1",
            "subresources": {"status": {}, "scale": paths},
            "schema": {"openAPIV3Schema": shape},
            "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}],
        }
        for name in ("v1", "v1alpha1")
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": versions,
        },
    }


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys take longer to make than a server to start: all share them."""
    return tmp_path_factory.mktemp("pki")


@pytest.fixture
async def server(tmp_path: Path, pki: Path, definition: dict[str, Any]) -> AsyncIterator[ApiServer]:
    config = ServerConfig(state_db=tmp_path / "state.db", pki=pki, listen=False)
    api = ApiServer(config, crds=[definition])
    await api.start()
    yield api
    await api.stop()


@pytest.fixture
def client(server: ApiServer) -> LocalClient:
    return server.client()
