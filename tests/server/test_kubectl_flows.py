"""A real kubectl against the server: what a person types must work, and look right."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.server.pki import Pki

KUBECTL = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
pytestmark = [pytest.mark.server, pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")]


class Kubectl:
    def __init__(self, server: ApiServer, directory: Path, pki: Pki) -> None:
        self._config, self._home = directory / "kubeconfig", directory
        admin = pki.client("admin", ("system:masters",))
        cluster = {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": str(pki.ca)}
        user = {"client-certificate": str(admin.certificate), "client-key": str(admin.key)}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "home",
            "contexts": [{"name": "home", "context": {"cluster": "home", "user": "admin"}}],
            "clusters": [{"name": "home", "cluster": cluster}], "users": [{"name": "admin", "user": user}],
        }  # fmt: skip
        self._config.write_text(json.dumps(config))

    async def start(self, *args: str, **env: str) -> asyncio.subprocess.Process:
        assert KUBECTL is not None
        return await asyncio.create_subprocess_exec(
            KUBECTL, *args, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"KUBECONFIG": str(self._config), "HOME": str(self._home), "PATH": os.environ["PATH"], **env},
        )  # fmt: skip

    async def __call__(self, *args: str, text: Any = None, fails: bool = False, **env: str) -> str:
        process = await self.start(*args, **env)
        sent = (text if isinstance(text, str) else json.dumps(text)).encode() if text is not None else None
        out, _ = await process.communicate(sent)
        assert (process.returncode != 0) is fails, f"kubectl {' '.join(args)}: {out.decode()}"
        return out.decode()


@pytest.fixture
async def kubectl(tmp_path: Path, definition: dict[str, Any]) -> AsyncIterator[Kubectl]:
    server = ApiServer(ServerConfig(state_db=tmp_path / "state.db", pki=tmp_path / "pki"), crds=[definition])
    await server.start()
    yield Kubectl(server, tmp_path, Pki(tmp_path / "pki"))
    await server.stop()


def widget(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


async def test_apply_get_edit_patch_scale_delete(kubectl: Kubectl) -> None:
    assert await kubectl("apply", "-f", "-", text=widget("a", color="red")) == "widget.example.com/a created\n"
    assert await kubectl("apply", "-f", "-", text=widget("a", color="red")) == "widget.example.com/a unchanged\n"
    assert "+  color: blue" in await kubectl("diff", "-f", "-", text=widget("a", color="blue"), fails=True)
    assert await kubectl("apply", "-f", "-", text=widget("a", color="blue")) == "widget.example.com/a configured\n"
    assert (await kubectl("get", "wd")).split() == ["NAME", "COLOR", "a", "blue"]
    await kubectl("edit", "wd", "a", KUBE_EDITOR="sed -i s/blue/green/")
    await kubectl("patch", "wd", "a", "--type=json", "-p", '[{"op":"add","path":"/spec/replicas","value":2}]')
    await kubectl("scale", "wd/a", "--replicas=4")
    await kubectl("label", "wd", "a", "on=yes")
    assert (await kubectl("get", "wd", "-l", "on=yes", "-o", "jsonpath={.items[*].spec}")) == (
        '{"color":"green","replicas":4}'
    )
    assert "Color:     green" in await kubectl("describe", "wd", "a")
    await kubectl("patch", "wd", "a", "--subresource=status", "--type=merge", "-p",
                  '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}')  # fmt: skip
    assert await kubectl("wait", "wd/a", "--for=condition=Ready", "--timeout=5s") == (
        "widget.example.com/a condition met\n"
    )
    await kubectl("delete", "wd", "a", "--cascade=foreground")
    assert "NotFound" in await kubectl("get", "wd", "a", fails=True)


async def test_server_side_apply_names_the_other_manager(kubectl: Kubectl) -> None:
    one, two = "--field-manager=one", "--field-manager=two"
    await kubectl("apply", "--server-side", one, "-f", "-", text=widget("a", color="red"))
    refusal = await kubectl("apply", "--server-side", two, "-f", "-", text=widget("a", color="blue"), fails=True)
    assert 'conflict with "one": .spec.color' in refusal
    await kubectl("apply", "--server-side", two, "--force-conflicts", "-f", "-", text=widget("a", color="blue"))


async def test_a_typo_is_refused_before_it_does_harm(kubectl: Kubectl) -> None:
    refusal = await kubectl("apply", "-f", "-", text=widget("a", colour="red"), fails=True)
    assert 'unknown field "spec.colour"' in refusal
    refusal = await kubectl("apply", "-f", "-", text=widget("a", replicas=-1), fails=True)
    assert "spec.replicas" in refusal


async def test_watching(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", text=widget("a", color="red"))
    process = await kubectl.start("get", "wd", "-w", "--output-watch-events")
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).split() for _ in range(2)]
    await kubectl("patch", "wd", "a", "--type=merge", "-p", '{"spec":{"color":"blue"}}')
    lines.append((await process.stdout.readline()).split())
    await kubectl("delete", "wd", "a")
    lines.append((await process.stdout.readline()).split())
    process.kill()
    await process.wait()
    assert lines[1:] == [[b"ADDED", b"a", b"red"], [b"MODIFIED", b"a", b"blue"], [b"DELETED", b"a", b"blue"]]


async def test_built_in_kinds_by_the_commands_made_for_them(kubectl: Kubectl) -> None:
    """These send protobuf, and read tables."""
    await kubectl("create", "namespace", "team")
    for command in (
        "configmap c --from-literal=a=b", "secret generic s --from-literal=a=b", "serviceaccount robot",
        "role r --verb=get --resource=pods", "rolebinding b --role=r --serviceaccount=team:robot",
        "service clusterip web --tcp=80:web", "deployment d --image=nginx --replicas=2", "quota q --hard=pods=3",
        "poddisruptionbudget p --selector=a=b --min-available=1", "job j --image=busybox",
    ):  # fmt: skip
        assert "created" in await kubectl("create", *command.split(), "-n", "team"), command
    assert "created" in await kubectl("run", "p", "--image=busybox", "-n", "team")
    listed = await kubectl("get", "pods", "-n", "team")
    assert listed.split()[:8] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "p", "0/1", "Pending"]
    assert await kubectl("get", "secret", "s", "-n", "team", "-o", "jsonpath={.data.a}") == "Yg=="
    assert await kubectl("get", "svc", "web", "-n", "team", "-o", "jsonpath={.spec.ports[0].targetPort}") == "web"
    await kubectl("set", "image", "deployment/d", "nginx=nginx:2", "-n", "team")
    assert await kubectl("get", "deploy", "d", "-n", "team", "-o", "jsonpath={..image}") == "nginx:2"
    await kubectl("delete", "namespace", "team")
    assert "team" not in await kubectl("get", "namespaces")


async def test_permissions_as_others_have_them(kubectl: Kubectl) -> None:
    await kubectl("create", "rolebinding", "b", "--clusterrole=view", "--user=jane")
    assert await kubectl("auth", "can-i", "list", "pods", "--as=jane") == "yes\n"
    assert await kubectl("auth", "can-i", "create", "pods", "--as=jane", fails=True) == "no\n"
    assert await kubectl("auth", "can-i", "list", "secrets", "--as=jane", fails=True) == "no\n"
    listed = await kubectl("auth", "can-i", "--list", "--as=jane")
    assert "[get list watch]" in listed
    refusal = await kubectl("delete", "configmap", "x", "--as=jane", fails=True)
    assert 'User "jane" cannot delete resource "configmaps"' in refusal
    assert "system:masters" in await kubectl("auth", "whoami")
    token = (await kubectl("create", "token", "default")).strip()
    assert token.count(".") == 2


async def test_finding_ones_way(kubectl: Kubectl) -> None:
    assert "Server Version: v1.36" in await kubectl("version")
    rows = [line.split() for line in (await kubectl("api-resources")).splitlines()]
    assert ["widgets", "wd", "example.com/v1", "true", "Widget"] in rows
    assert "How many." in await kubectl("explain", "wd.spec.replicas")
    assert "example.com/v1alpha1" in (await kubectl("api-versions")).split()
    assert "containers" in await kubectl("explain", "pod.spec")
