"""Who may do what with machines: each of KubeVirt's roles against each subresource, asked of the real API."""

import asyncio
import os
import shutil
import ssl
import sys
import tempfile
from pathlib import Path

import aiohttp
import pytest

from hotvirt.home import bootstrap, keys
from hotvirt.home.assembly import Home
from hotvirt.home.paths import Paths
from hotvirt.kube import kubeconfig
from hotvirt.kube.kubeconfig import Access
from hotvirt.kube.resources import Resource
from hotvirt.server.pki import Pki

pytestmark = pytest.mark.server

ROLES = ("kubevirt.io:admin", "kubevirt.io:edit", "kubevirt.io:view", "kubevirt.io:migrate", "admin", "edit", "view")
NOBODY = "nobody's"
EVERYBODY = (*ROLES, NOBODY)
WRITERS = ("kubevirt.io:admin", "kubevirt.io:edit", "admin", "edit")
READERS = (*WRITERS, "kubevirt.io:view", "view")
VM, VMI = "namespaces/default/virtualmachines/web", "namespaces/default/virtualmachineinstances/web"
TABLE = {
    # path: (method, who may)
    **{f"{VM}/{verb}": ("PUT", WRITERS) for verb in (
        "start", "stop", "restart", "addvolume", "removevolume", "memorydump", "removememorydump", "evacuate/cancel",
    )},
    f"{VM}/migrate": ("PUT", ("kubevirt.io:migrate",)),
    f"{VM}/expand-spec": ("GET", READERS),
    f"{VM}/objectgraph": ("GET", READERS),
    f"{VM}/portforward/22": ("GET", WRITERS),
    f"{VM}/portforward/53/udp": ("GET", WRITERS),
    **{f"{VMI}/{verb}": ("PUT", WRITERS) for verb in (
        "pause", "unpause", "freeze", "unfreeze", "reset", "softreboot", "addvolume", "removevolume",
        "evacuate/cancel", "sev/setupsession", "sev/injectlaunchsecret",
    )},
    **{f"{VMI}/{verb}": ("GET", WRITERS) for verb in (
        "console", "vnc", "portforward/22/tcp", "usbredir",
    )},
    f"{VMI}/vnc/screenshot": ("GET", ("kubevirt.io:admin", "admin")),
    **{f"{VMI}/{verb}": ("GET", READERS) for verb in (
        "guestosinfo", "userlist", "filesystemlist", "objectgraph", "sev/fetchcertchain", "sev/querylaunchmeasurement",
    )},
    **{f"{VMI}/{verb}": (method, ()) for verb, method in (
        ("vsock", "GET"), ("backup", "PUT"), ("redefine-checkpoint", "PUT"),  # no role of KubeVirt's has them
    )},
    "namespaces/default/expand-vm-spec": ("PUT", READERS),
    "version": ("GET", EVERYBODY),
    "guestfs": ("GET", EVERYBODY),
    "healthz": ("GET", EVERYBODY),
}  # fmt: skip


@pytest.fixture
async def served():
    """The place of a home whose API answers, with a binding in `default` for each role."""
    directory = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))
    place = Paths(state=directory, run=directory / "run", is_default=False)
    place.prepare()
    home = Home(place, port=0)
    access: Access = await home.start()
    try:
        client = home.client("home")
        await bootstrap.ensure(client, version="v1")
        group = "rbac.authorization.k8s.io"
        bindings = Resource(group, "v1", "rolebindings", "RoleBinding")
        for role in ROLES:
            binding = {
                "apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {"name": role.replace(":", "-")},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": group, "kind": "User", "name": f"of {role}"}],
            }  # fmt: skip
            await client.create(bindings, binding, "default")
        yield place, access
    finally:
        await home.stop()
        shutil.rmtree(directory)


@pytest.fixture
async def api(served):
    place, access = served
    pki = Pki(place.pki)
    pair = keys.administrator(pki)
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(pair.certificate, pair.key)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(access.server, connector=connector) as session:
        yield session


async def test_each_role_may_do_what_kubevirts_may(api):
    async def asked(version, path, method, role):
        url = f"/apis/subresources.kubevirt.io/{version}/{path}"
        headers = {"Impersonate-User": f"of {role}", "Impersonate-Group": "system:authenticated"}
        async with api.request(method, url, headers=headers) as answer:
            body = await answer.text()
            if path not in ("version", "guestfs", "healthz", "namespaces/default/expand-vm-spec"):
                assert answer.status in (400, 403, 404), (url, body)  # there is no such machine
            assert answer.status < 500 or (path, answer.status) == ("guestfs", 501), (url, body)
            return answer.status != 403

    wrong = []
    for version in ("v1", "v1alpha3"):
        for path, (method, who) in TABLE.items():
            may = await asyncio.gather(*(asked(version, path, method, role) for role in EVERYBODY))
            wrong += [(version, path, role) for role, does in zip(EVERYBODY, may, strict=True) if does != (role in who)]
    assert wrong == []


async def test_the_table_above_has_every_verb_that_is_served(api):
    for version in ("v1", "v1alpha3"):
        async with api.get(f"/apis/subresources.kubevirt.io/{version}") as answer:
            served = {each["name"] for each in (await answer.json())["resources"]}
        names = {path.removeprefix("namespaces/default/").replace("/web/", "/") for path in TABLE}
        names = {name.partition("/portforward/")[0] + "/portforward" if "/portforward/" in name else name
                 for name in names}  # fmt: skip
        assert served - names == {"start-cluster-profiler", "stop-cluster-profiler", "dump-cluster-profiler"}


async def test_the_wrong_method_an_unknown_verb_and_an_unknown_machine(api):
    base = "/apis/subresources.kubevirt.io/v1"
    for method, path, status, says in (
        ("GET", f"{VM}/start", 405, "answers PUT"),
        ("PUT", f"{VMI}/console", 405, "answers GET"),
        ("POST", f"{VM}/start", 405, "answers PUT"),
        ("DELETE", "version", 405, "answers GET"),
        ("PUT", f"{VM}/fly", 404, "no subresource virtualmachines/fly"),
        ("PUT", f"{VM}/start/now", 404, "no subresource virtualmachines/start/now"),
        ("GET", "version/x", 404, "no subresource"),
        ("PUT", f"{VM}/start", 404, 'virtualmachines.kubevirt.io "web" not found'),
        ("PUT", f"{VMI}/pause", 404, 'virtualmachineinstances.kubevirt.io "web" not found'),
        ("GET", f"{VMI}/console", 404, 'virtualmachineinstances.kubevirt.io "web" not found'),
    ):
        async with api.request(method, f"{base}/{path}") as answer:
            body = await answer.json()
            assert (answer.status, body["kind"], body["code"], says in body["message"]) == (
                status, "Status", status, True,
            ), (method, path, body)  # fmt: skip


JUNK = (
    b"", b"null", b"{}", b"[]", b"{", b"\xff", b'{"dryRun":["All"]}', b'{"dryRun":1}', b'{"name":{"a":[]}}',
    b'{"disk":{"disk":{"bus":5}},"name":"x"}', b'{"unfreezeTimeout":1e400}', b'{"unfreezeTimeout":"9h"}',
    b'{"gracePeriod":-1}', b'{"gracePeriod":99999999999999999999}', b'{"gracePeriodSeconds":true}',
    b'{"claimName":"' + b"x" * 300 + b'"}', b'{"metadata":[],"spec":5}', b'{"spec":{"template":[]}}',
    b'{"spec":{"template":{"spec":{"domain":null}},"instancetype":{"name":"x"}}}', b'{"a":' * 3000, b"x" * 70_000,
    b'{"kind":"VirtualMachine","metadata":{"name":5},"spec":{"template":{}}}',
)  # fmt: skip


async def test_junk_is_the_clients_fault_and_changes_nothing(api):
    """Against a VM that is there and does not run."""
    template = {"spec": {"domain": {"memory": {"guest": "1Gi"}, "devices": {}}}}
    vm = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "web"},
          "spec": {"runStrategy": "Manual", "template": template}}  # fmt: skip
    stored = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines"
    async with api.post(stored, json=vm) as answer:
        assert answer.status == 201, await answer.text()
    found = set()
    for path, (method, _) in TABLE.items():
        for body in JUNK:
            async with api.request(method, f"/apis/subresources.kubevirt.io/v1/{path}", data=body) as answer:
                assert answer.status < 500 or answer.status == 501, (path, body[:80], await answer.text())
                found.add(answer.status)
    assert found <= {200, 202, 400, 403, 404, 409, 413, 501}
    async with api.get(f"{stored}/web") as answer:
        now = await answer.json()
        assert now["spec"]["runStrategy"] == "Manual"
        assert not now.get("status", {}).get("memoryDumpRequest")


SNAPSHOTS, CONTENTS, CLASSES = (
    f"{name}.snapshot.storage.k8s.io" for name in ("volumesnapshots", "volumesnapshotcontents", "volumesnapshotclasses")
)
MAY = {
    # what: the roles that may
    f"create {SNAPSHOTS}": ("admin", "edit"),
    f"delete {SNAPSHOTS}": ("admin", "edit"),
    f"deletecollection {SNAPSHOTS}": ("admin",),
    f"list {SNAPSHOTS}": ("admin", "edit", "view"),
    f"patch {SNAPSHOTS}": ("admin", "edit"),
    f"get {CLASSES}": ("admin", "edit", "view", NOBODY),
    f"create {CLASSES}": (),
    f"get {CONTENTS}": (),
    "create virtualmachinesnapshots.snapshot.kubevirt.io": ("admin", "edit"),
    "watch virtualmachinesnapshotcontents.snapshot.kubevirt.io": ("admin", "edit", "view"),
    "create virtualmachinerestores.snapshot.kubevirt.io": ("admin", "edit"),
    "create virtualmachineclones.clone.kubevirt.io": ("admin", "edit"),
    "create virtualmachineexports.export.kubevirt.io": ("admin", "edit"),
    "get virtualmachineexports.export.kubevirt.io": ("admin", "edit", "view"),
    "create datavolumes.cdi.kubevirt.io": ("admin", "edit"),
    "create persistentvolumeclaims": ("admin", "edit"),
}


async def test_kubectl_says_who_may_take_snapshots(served):
    place, access = served
    config = place.state / "as-somebody"
    kubeconfig.write_context(config, "home", access)

    async def may(what, role):
        argv = ["auth", "can-i", *what.split(), "-n", "default", f"--as=of {role}", "--as-group=system:authenticated"]
        process = await asyncio.create_subprocess_exec(
            shutil.which("kubectl") or Path(sys.executable).with_name("kubectl"), *argv, "-q",
            env={**os.environ, "KUBECONFIG": str(config)},
        )  # fmt: skip
        return await process.wait() == 0

    wrong, asked = [], ("admin", "edit", "view", NOBODY)
    for what, who in MAY.items():
        found = await asyncio.gather(*(may(what, role) for role in asked))
        wrong += [(what, role) for role, does in zip(asked, found, strict=True) if does != (role in who)]
    assert wrong == []
