"""Discovery, OpenAPI and version over HTTP. Documents are built when first asked for and kept as bytes until what is
served changes."""

import hashlib
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from hotvirt.kube.aggregated import AggregatedGroup
from hotvirt.kube.errors import NotFound
from hotvirt.server import discovery, openapi, openapi_protobuf
from hotvirt.server.negotiation import NotAcceptable, accepted
from hotvirt.server.paths import Target
from hotvirt.server.registry import Registry
from hotvirt.server.responses import json_response

Document = dict[str, Any]
_PROTOBUF = (openapi_protobuf.CONTENT_TYPE, openapi_protobuf.ACCEPTED)  # asked for by either name
_BUILT = "2026-01-01T00:00:00Z"


class Describer:
    def __init__(self, registry: Registry, groups: Sequence[AggregatedGroup], *, version: str) -> None:
        self._registry, self._groups, self._version = registry, groups, version
        self._kept: dict[str, tuple[bytes, str]] = {}
        registry.on_change(self._kept.clear)

    async def answer(self, request: web.Request, path: str, target: Target | None) -> web.Response:
        path = path.rstrip("/") or "/"
        served, groups = self._registry.all(), self._groups
        match path:
            case "/version":
                return json_response(version_info(self._version))
            case "/api" | "/apis":
                return self._roots(request, path)
            case "/openapi/v2":
                return self._openapi_v2(request)
            case "/openapi/v3":
                return self._send(request, path, lambda: openapi.v3_index(served, groups))
            case "/":
                return json_response({"paths": self._root_paths()})
        if path.startswith("/openapi/v3/"):
            group_version = path.removeprefix("/openapi/v3/").partition("/")[2]
            return self._send(request, path, lambda: openapi.v3(served, group_version, groups))
        if target is not None and target.version:
            return self._send(
                request, path, lambda: discovery.resource_list(target.group, target.version, served, groups)
            )  # fmt: skip
        if target is not None:
            return self._send(request, path, lambda: discovery.group(target.group, served, groups))
        raise NotFound("the server could not find the requested resource")

    def _roots(self, request: web.Request, path: str) -> web.Response:
        served, groups = self._registry.all(), self._groups
        form = accepted(request.headers.get("Accept"))
        if form.kind == "discovery":
            return self._send(
                request, f"{path}#v2", lambda: discovery.aggregated_list(served, groups, core=path == "/api"),
                content_type=form.content_type,
            )  # fmt: skip
        if path == "/api":
            return self._send(request, path, lambda: discovery.api_versions(request.host))
        return self._send(request, path, lambda: discovery.group_list(served, groups))

    def _openapi_v2(self, request: web.Request) -> web.Response:
        """JSON for those who take it, and protobuf for those who know nothing else."""
        header = request.headers.get("Accept", "")
        served = self._registry.all()
        if not header or "json" in header or "*/*" in header:
            return self._send(request, "v2", lambda: openapi.v2(served, self._groups))
        if not any(media in header for media in _PROTOBUF):
            raise NotAcceptable(f"only the following media types are accepted: application/json, {_PROTOBUF[0]}")
        return self._send(
            request, "v2 protobuf", lambda: openapi.v2(served, self._groups), encode=openapi_protobuf.encode,
            content_type=openapi_protobuf.CONTENT_TYPE,
        )  # fmt: skip

    def _send(
        self,
        request: web.Request,
        key: str,
        build: Callable[[], Document | None],
        *,
        content_type: str = "",
        encode: Callable[[Document], bytes] = msgspec.json.encode,
    ) -> web.Response:
        kept = self._kept.get(key)
        if kept is None:
            doc = build()
            if doc is None:
                raise NotFound("the server could not find the requested resource")
            body = encode(doc)
            kept = self._kept[key] = (body, f'"{hashlib.sha256(body).hexdigest().upper()}"')
        body, tag = kept
        headers = {"ETag": tag, "Vary": "Accept"}
        if request.headers.get("If-None-Match") in (tag, tag.strip('"')):
            return web.Response(status=304, headers=headers)
        return json_response(body, content_type=content_type or "application/json", headers=headers)

    def _root_paths(self) -> list[str]:
        versions = {each.resource.api_version for each in self._registry.all()}
        versions |= {f"{group.name}/{version}" for group in self._groups for version in group.versions}
        below = [f"/apis/{each}" for each in sorted(versions) if "/" in each]
        return ["/api", "/api/v1", "/apis", *below, "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz",
                "/version"]  # fmt: skip


def version_info(version: str) -> Document:
    major, minor = version.lstrip("v").split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": _BUILT,
        "goVersion": f"python{platform.python_version()}",
        "compiler": sys.implementation.name,
        "platform": f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(platform.machine(), platform.machine()) }",
    }
