"""`hotvirt why` on an API that serves KubeVirt's kinds and has no hotvirt in it: a real API server with the CRDs alone,
objects as upstream's controllers leave them, and an ordinary user with a role of KubeVirt's."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from hotvirt.api.crds import crds
from hotvirt.cli.main import hotvirt
from hotvirt.home.roles import bindings, roles
from hotvirt.kube.kubeconfig import Access
from hotvirt.kube.resources import (
    CLAIMS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    KUBEVIRTS,
    NAMESPACES,
    NODES,
    SERVICE_ACCOUNTS,
    VMIS,
    VMS,
    Resource,
)
from hotvirt.server.app import ApiServer, ServerConfig

pytestmark = pytest.mark.server
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
TEMPLATE = {
    "architecture": "amd64",
    "domain": {
        "cpu": {"cores": 1, "sockets": 2, "threads": 1, "maxSockets": 8},
        "memory": {"guest": "2Gi", "maxGuest": "8Gi"},
        "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]},
    },
    "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "root"}}],
}
SHOP = "shop"


def condition(kind, status, **more):
    return {"type": kind, "status": status, **more}


def of(kind, name, **parts):
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, **parts}


async def objects(client):
    """One machine of each sort that upstream tells apart."""
    await client.create(NAMESPACES, of(NAMESPACES, "kubevirt"))
    await client.create(NAMESPACES, of(NAMESPACES, SHOP))
    await client.create(KUBEVIRTS, of(KUBEVIRTS, "kubevirt", spec={"workloadUpdateStrategy": {}}), "kubevirt")
    schedulable = {"kubevirt.io/schedulable": "true"}
    for name in ("n1", "n2"):
        node = of(NODES, name)
        node["metadata"]["labels"] = schedulable
        await client.create(NODES, node)
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    await client.create(CLAIMS, of(CLAIMS, "data", spec=claim), SHOP)
    for name, migratable in (("web", condition("LiveMigratable", "True")),
                             ("stuck", condition("LiveMigratable", "False", reason="DisksNotLiveMigratable",
                                                 message="PVC root is not shared"))):  # fmt: skip
        spec = {"runStrategy": "Always", "template": {"spec": TEMPLATE}}
        await client.create(VMS, of(VMS, name, spec=spec), SHOP)
        status = {
            "phase": "Running", "nodeName": "n1", "memory": {"guestAtBoot": "2Gi", "guestCurrent": "2Gi"},
            "conditions": [condition("AgentConnected", "True"), migratable],
        }  # fmt: skip
        await client.create(VMIS, of(VMIS, name, spec=TEMPLATE, status=status), SHOP)
    for kind, made in ((CLUSTER_ROLES, roles()), (CLUSTER_ROLE_BINDINGS, bindings())):
        for each in made:
            await client.create(kind, each)


async def access_of(api, client, account, role):
    """A service account of the namespace with one of KubeVirt's roles there."""
    await client.create(SERVICE_ACCOUNTS, of(SERVICE_ACCOUNTS, account), SHOP)
    group = "rbac.authorization.k8s.io"
    binding = of(
        ROLE_BINDINGS, account, roleRef={"apiGroup": group, "kind": "ClusterRole", "name": role},
        subjects=[{"kind": "ServiceAccount", "name": account, "namespace": SHOP}],
    )  # fmt: skip
    await client.create(ROLE_BINDINGS, binding, SHOP)
    token = await client.post(SERVICE_ACCOUNTS, account, "token", {"spec": {}}, SHOP)
    ca = (api.config.pki / "ca.crt").read_text()
    return Access(
        server=f"https://127.0.0.1:{api.port}", namespace=SHOP, ca=ca, token=token["status"]["token"]
    )  # fmt: skip


def why(access, *words):
    """Exit code and the report."""
    result = CliRunner().invoke(hotvirt, ["why", *words, "-o", "json"], obj=access)
    assert result.stdout, (result.stderr, result.exception)
    return result.exit_code, json.loads(result.stdout)


def failing(access, *words):
    code, report = why(access, *words)
    assert report["rules"] == "kubevirt"
    found = {each["id"] for one in report["changes"] for each in one["findings"] if each["status"] == "fail"}
    assert code == (3 if found else 0)
    return found


async def test_upstreams_rules_are_explained_to_an_ordinary_user(tmp_path):
    api = ApiServer(ServerConfig(state_db=tmp_path / "state.db", pki=tmp_path / "pki"), crds=crds())
    await api.start()
    try:
        client = api.client()
        await objects(client)
        editor = await access_of(api, client, "worker", "edit")
        viewer = await access_of(api, client, "looker", "view")
        ask = asyncio.to_thread

        # As installed, nothing starts the migration; nodes are not for ordinary users to see.
        code, report = await ask(why, editor, "vm/web", "memory=4Gi")
        assert code == 3
        found = {each["id"]: each for each in report["changes"][0]["findings"]}
        assert {each for each in found if found[each]["status"] == "fail"} == {"upstream.update-methods"}
        assert found["upstream.second-node"]["status"] == "unknown"
        assert found["caller.patch-vm"]["status"] == "pass"
        assert "spec.workloadUpdateStrategy.workloadUpdateMethods" in found["upstream.update-methods"]["mend"]

        methods = {"workloadUpdateStrategy": {"workloadUpdateMethods": ["LiveMigrate"]}}
        await client.patch(KUBEVIRTS, "kubevirt", {"spec": methods}, "kubevirt")
        assert await ask(failing, editor, "vm/web", "memory=4Gi", "cpu=4") == set()
        assert await ask(failing, editor, "vm/web") == set()
        assert await ask(failing, editor, "vm/stuck", "memory=4Gi") == {"upstream.migratable"}
        assert await ask(failing, editor, "vm/web", "cpu=1") == {"upstream.cpu-never-fewer"}
        assert await ask(failing, editor, "vm/web", "memory=1Gi") == {"upstream.memory-boot-size"}
        assert await ask(failing, editor, "vm/web", "memory=16Gi") == {"memory.max-guest"}
        assert await ask(failing, editor, "vm/web", "disk=nowhere") == {"disk.claim"}
        assert await ask(failing, editor, "vm/web", "disk=data,bus=sata") == {"disk.bus"}
        assert await ask(failing, viewer, "vm/web", "memory=4Gi") == {"caller.patch-vm"}

        pending = condition("RestartRequired", "True", message="a non-live-updatable field was changed")
        await client.patch(VMS, "web", {"status": {"conditions": [pending]}}, SHOP, subresource="status")
        assert await ask(failing, editor, "vm/web", "memory=4Gi") == {"upstream.no-restart-pending"}
    finally:
        await api.stop()
