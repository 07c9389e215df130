"""Downloads of VirtualMachineExports, at the API's port: disks and manifests, for who brings the export's token.

Nothing tells a wrong token from an export that does not exist. A download reads as it sends, so it costs a megabyte
however large the disk, and any number of them run concurrently. It ends when its reader goes.
"""

import asyncio
import hmac
import json
import tarfile
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from aiohttp import web

from hotvirt.api import exports
from hotvirt.api.exports import Disk, Wanted
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import BadRequest, Conflict, MethodNotAllowed, NotFound, Unauthorized
from hotvirt.kube.resources import EXPORTS, SECRETS, SNAPSHOT_CONTENTS, SNAPSHOTS, VMS


class Opened(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def chunks(self) -> AsyncIterator[bytes]: ...


class ExportFiles(Protocol):
    """Who holds the disks. Raises `hotvirt.kube.errors`: NotFound for no disk, Conflict for one in use."""

    def size(self, namespace: str, disk: Disk) -> int: ...

    def open(self, namespace: str, disk: Disk) -> AbstractAsyncContextManager[Any]: ...


class ExportDoor:
    prefix = exports.PREFIX

    def __init__(self, client: Callable[[], Client], files: Callable[[], ExportFiles]) -> None:
        self._client, self._files = client, files

    async def handle(self, request: web.Request) -> web.StreamResponse:
        wanted = exports.parse(request.rel_url.path)
        if wanted is None:
            raise NotFound("this is no path of an export: take one of its status.links")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("an export can only be downloaded")
        export, secret = await self._admitted(request, wanted)
        if (export.get("status") or {}).get("phase") != "Ready":
            raise Conflict(f"export {wanted.name} is not ready: see kubectl describe vmexport {wanted.name}")
        if wanted.manifest:
            return await self._manifest(request, wanted, export, secret)
        disks, _ = await self._contents(export)
        disk = next((each for each in disks if each.volume == wanted.volume), None)
        if disk is None or (disk.kind == exports.DUMP) is not wanted.is_archive:
            raise NotFound(f"export {wanted.name} has no volume {wanted.volume!r} of this format")
        return await self._disk(request, wanted, disk)

    async def _admitted(self, request: web.Request, wanted: Wanted) -> tuple[Document, Document]:
        brought = request.headers.get(exports.HEADER) or request.query.get(exports.HEADER) or ""
        client = self._client()
        try:
            export = await client.get(EXPORTS, wanted.name, wanted.namespace)
            secret = await client.get(SECRETS, exports.token_secret(export), wanted.namespace)
            token = exports.token(secret)
        except NotFound:
            token = ""
        if not token or not hmac.compare_digest(token.encode(), brought.encode()):
            raise Unauthorized(f"bring the export's token, as the header {exports.HEADER}")
        return export, secret

    async def _contents(self, export: Document) -> tuple[list[Disk], Document | None]:
        """Its disks, and the machine they are of."""
        source, namespace, client = export["spec"]["source"], export["metadata"]["namespace"], self._client()
        if source["kind"] == "PersistentVolumeClaim":
            vms = await client.list(VMS, namespace)
            return exports.of_claim_with(source["name"], vms["items"]), None
        if source["kind"] == VMS.kind:
            vm = await client.get(VMS, source["name"], namespace)
            return exports.of_machine(vm), vm
        snapshot = await client.get(SNAPSHOTS, source["name"], namespace)
        name = (snapshot.get("status") or {}).get("virtualMachineSnapshotContentName")
        content = await client.get(SNAPSHOT_CONTENTS, str(name), namespace)
        machine: Document = content["spec"]["source"]["virtualMachine"]
        return exports.of_content(content), machine

    async def _manifest(
        self, request: web.Request, wanted: Wanted, export: Document, secret: Document
    ) -> web.StreamResponse:
        if wanted.manifest == "secret":
            found = [exports.header_secret(export, secret)]
        else:
            disks, machine = await self._contents(export)
            if machine is None:
                raise BadRequest("a claim has no manifest: export the VM that uses it")
            sizes = {disk.volume: self._files().size(wanted.namespace, disk) for disk in disks}
            found = exports.manifests(export, machine, sizes)
        if "yaml" in request.headers.get("Accept", ""):
            import yaml

            text = "".join(f"---\n{yaml.safe_dump(each, sort_keys=False)}" for each in found)
            return web.Response(text=text, content_type="application/yaml")
        body = {"apiVersion": "v1", "kind": "List", "items": found}
        return web.Response(body=json.dumps(body).encode(), content_type="application/json")

    async def _disk(self, request: web.Request, wanted: Wanted, disk: Disk) -> web.StreamResponse:
        async with self._files().open(wanted.namespace, disk) as opened:
            response = web.StreamResponse()
            response.content_type = "application/gzip" if wanted.is_zipped else "application/octet-stream"
            if not wanted.is_zipped:
                response.content_length = opened.size
            await response.prepare(request)
            if request.method == "GET":
                parts = _archived(opened) if wanted.is_archive else opened.chunks()
                async for chunk in _zipped(parts) if wanted.is_zipped else parts:
                    await response.write(chunk)
            await response.write_eof()
            return response


async def _archived(opened: Opened) -> AsyncIterator[bytes]:
    """As a tar with one file."""
    info = tarfile.TarInfo(opened.name)
    info.size, info.mode = opened.size, 0o600
    yield info.tobuf(tarfile.GNU_FORMAT)
    async for chunk in opened.chunks():
        yield chunk
    yield bytes(-opened.size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


async def _zipped(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """With the least effort: most of a disk is zeros, and the rest seldom gets much smaller."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    async for chunk in parts:
        if packed := await asyncio.to_thread(packer.compress, chunk):
            yield packed
    yield packer.flush()
