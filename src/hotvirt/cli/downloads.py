"""Exports as commands use them: made, waited for, downloaded, deleted. Blocking, by the standard library's HTTP client.

A download is checked against the certificate in the export's own links, and written where zeros cost nothing.
"""

import http.client
import secrets
import ssl
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.waiting import wait_for
from hotvirt.kube import conditions
from hotvirt.kube.client import Document
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.resources import EXPORTS, SECRETS

HEADER = "x-kubevirt-export-token"
CHUNK, BLOCK = 1 << 20, 64 << 10
READY = 120.0
Told = Callable[[int], None]
"""Called with how many bytes there are so far."""


def source(kind: str, name: str) -> Document:
    """An export's `spec.source`. `kind` is vm, snapshot or pvc."""
    group, named = {
        "vm": ("kubevirt.io", "VirtualMachine"),
        "snapshot": ("snapshot.kubevirt.io", "VirtualMachineSnapshot"),
        "pvc": ("", "PersistentVolumeClaim"),
    }[kind]
    return {"apiGroup": group, "kind": named, "name": name}


def create(
    api: Api, name: str, of: Document, *, ttl: str = "", labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> bool:  # fmt: skip
    """Whether it was made: False when there is one already. Its token is made with it."""
    secret = f"secret-{name}"
    metadata: Document = {"name": name}
    if labels:
        metadata["labels"] = labels
    if annotations:
        metadata["annotations"] = annotations
    spec: Document = {"source": of, "tokenSecretRef": secret}
    if ttl:
        spec["ttlDuration"] = ttl
    try:
        export = api.request(
            "POST", EXPORTS.path(api.namespace),
            body={"apiVersion": EXPORTS.api_version, "kind": EXPORTS.kind, "metadata": metadata, "spec": spec},
        )  # fmt: skip
    except AlreadyExists:
        return False
    owner = {
        "apiVersion": EXPORTS.api_version, "kind": EXPORTS.kind, "name": name, "uid": export["metadata"]["uid"],
    }  # fmt: skip
    body = {
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": {"token": secrets.token_hex(20)},
        "metadata": {"name": secret, "ownerReferences": [owner]},
    }  # fmt: skip
    try:
        api.request("POST", SECRETS.path(api.namespace), body=body)
    except AlreadyExists:
        pass
    return True


def delete(api: Api, name: str) -> bool:
    """Whether there was one."""
    try:
        api.request("DELETE", EXPORTS.path(api.namespace, name))
    except NotFound:
        return False
    return True


def ready(api: Api, name: str, *, timeout: float = READY) -> Document:
    """The export once it can be downloaded; CliError with the reason when it takes too long, or never can."""

    def is_done(export: Document) -> bool:
        status = export.get("status") or {}
        if status.get("phase") == "Skipped":
            raise CliError(f"export {name} has nothing to download: {_why(export)}")
        return status.get("phase") == "Ready" and bool((status.get("links") or {}).get("external"))

    try:
        return wait_for(api, EXPORTS, name, is_done, what="ready", timeout=timeout)
    except CliError as error:
        now = api.get(EXPORTS, name, api.namespace)
        raise CliError(_why(now) or str(error)) from error


def _why(export: Document) -> str:
    return str((conditions.of(export, "Ready") or {}).get("message") or "")


def volumes(export: Document) -> dict[str, dict[str, str]]:
    """Volume -> format -> URL."""
    found = export["status"]["links"]["external"].get("volumes") or ()
    return {volume["name"]: {each["format"]: each["url"] for each in volume["formats"]} for volume in found}


def manifest_urls(export: Document) -> dict[str, str]:
    found = export["status"]["links"]["external"].get("manifests") or ()
    return {each["type"]: each["url"] for each in found}


def fetch(
    api: Api, export: Document, url: str, *, accept: str = "*/*", insecure: bool = False, service: str = ""
) -> Iterator[bytes]:
    """The answer in parts. CliError for a refusal, and for an answer that breaks off."""
    at = urlsplit(url)
    context = ssl.create_default_context(cadata=export["status"]["links"]["external"]["cert"])
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host = service or at.netloc
    connection = http.client.HTTPSConnection(host, timeout=60, context=context)
    try:
        connection.request("GET", at.path, headers={HEADER: _token(api, export), "Accept": accept})
        answer = connection.getresponse()
        if answer.status != 200:
            text = answer.read(4096).decode(errors="replace")
            raise CliError(f"{host} answers {answer.status} {answer.reason}: {text[:300]}")
        while part := answer.read(CHUNK):
            yield part
        if answer.length:
            raise CliError(f"{host} ended the download {answer.length} bytes early: try again")
    except (OSError, http.client.HTTPException) as error:
        raise CliError(f"the download from {host} failed: {error}") from error
    finally:
        connection.close()


def _token(api: Api, export: Document) -> str:
    name = export["spec"].get("tokenSecretRef") or export["status"].get("tokenSecretRef")
    secret = api.get(SECRETS, str(name), api.namespace)
    return b64decode((secret.get("data") or {}).get("token") or "").decode()


def unzipped(parts: Iterator[bytes]) -> Iterator[bytes]:
    """CliError when what comes is no gzip, or ends too early."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        for part in parts:
            left = part
            while left:  # in pieces: much zero is little gzip
                yield unpacker.decompress(left, CHUNK)
                left = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error as error:
        raise CliError(f"the download is damaged: {error}; try again") from error
    if not unpacker.eof:
        raise CliError("the download ended early: try again")


def write(parts: Iterator[bytes], out: IO[bytes], told: Told) -> int:
    """As they come, to a pipe for one."""
    done = 0
    for part in parts:
        out.write(part)
        done += len(part)
        told(done)
    return done


def write_sparse(parts: Iterator[bytes], path: Path, told: Told) -> int:
    """Into a file that takes no room for zeros."""
    done, zeros = 0, bytes(BLOCK)
    with path.open("wb") as out:
        for part in _blocks(parts):
            if part != zeros[: len(part)]:
                out.seek(done)
                out.write(part)
            done += len(part)
            told(done)
        out.truncate(done)
    return done


def _blocks(parts: Iterator[bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    for part in parts:
        waiting += part
        whole = len(waiting) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            yield bytes(waiting[at : at + BLOCK])
        del waiting[:whole]
    if waiting:
        yield bytes(waiting)
