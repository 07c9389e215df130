"""What a data volume's source says, with the secrets and certificates that it names, as the fetchers in `images` want
it. Secrets are read at that moment and kept nowhere.
"""

import asyncio
import base64
from pathlib import Path

from hotvirt.api.datavolumes import Request
from hotvirt.images import catalog, download, reference
from hotvirt.images import registry as registries
from hotvirt.images.errors import ImageError
from hotvirt.images.tools import Progress
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import CONFIG_MAPS, SECRETS, Resource
from hotvirt.node import pulls

USER, PASSWORD = "accessKeyId", "secretKey"  # CDI's names of a secret's keys


async def http(client: Client, namespace: str, request: Request) -> download.Source:
    given = request.source
    user = password = ""
    if name := given.get("secretRef"):
        data = _decoded(await _named(client, SECRETS, name, namespace, "secretRef"))
        user, password = data.get(USER, ""), data.get(PASSWORD, "")
    headers = dict(_header(each) for each in given.get("extraHeaders") or ())
    for name in given.get("secretExtraHeaders") or ():
        data = _decoded(await _named(client, SECRETS, name, namespace, "secretExtraHeaders"))
        headers |= dict(_header(each) for each in data.values())
    authorities = await _authorities(client, namespace, given)
    return download.Source(
        url=str(given["url"]), headers=headers, user=user, password=password, authorities=authorities,
        checksum=request.checksum,
    )  # fmt: skip


async def registry(client: Client, namespace: str, request: Request, *, cache: Path, tell: Progress) -> Path:
    """The disk in the image, among those that are kept: not to be written to."""
    name = str(request.source.get("url") or "").removeprefix("docker://")
    if not reference.is_of_registry(name):
        files = await catalog.ensure(name, cache)
        if files.disk is None:
            raise ImageError(f"image {name} has no disk")
        return files.disk
    auths = None
    if secret_name := request.source.get("secretRef"):
        secret = await _named(client, SECRETS, secret_name, namespace, "secretRef")
        data = _decoded(secret)
        if data.get(USER):
            code = base64.b64encode(f"{data[USER]}:{data.get(PASSWORD, '')}".encode()).decode()
            auths = {reference.parse(name).host: {"auth": code}}
        else:
            auths = pulls.credentials(secret)
    if authorities := await _authorities(client, namespace, request.source):
        await asyncio.to_thread(download.trust, authorities)  # skopeo reads over what is no certificate
    pulled = await registries.pull(name, [], cache, auths=auths, authorities=authorities, progress=tell)
    assert pulled.disk is not None
    return pulled.disk


async def _authorities(client: Client, namespace: str, given: Document) -> str:
    """Certificates (PEM) of the source's ConfigMap."""
    name = given.get("certConfigMap")
    if not name:
        return ""
    found = (await _named(client, CONFIG_MAPS, name, namespace, "certConfigMap")).get("data") or {}
    return "\n".join(str(each) for each in found.values())


async def _named(client: Client, resource: Resource, name: str, namespace: str, field: str) -> Document:
    try:
        return await client.get(resource, name, namespace)
    except NotFound:
        raise ImageError(f"{field} is {name!r}, but there is no such {resource.kind}: create it") from None


def _decoded(secret: Document) -> dict[str, str]:
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in (secret.get("data") or {}).items()}


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.strip().partition(":")
    if not colon or not name:
        raise ImageError(f"{name[:40]!r} is no header: write it as NAME: VALUE")
    return name.strip(), value.strip()
