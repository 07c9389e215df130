"""Volumes that are small discs made on the spot: of config maps, secrets, accounts, the pod, and Windows' answers.

What they need is asked through the same lookup as other volumes'. Made when the guest starts, and not changed after.
"""

import base64
from typing import Any

from msgspec import Struct

from hotvirt.api import downward
from hotvirt.kube.client import Document
from hotvirt.kube.resources import CONFIG_MAPS, PODS, SECRETS, SERVICE_ACCOUNTS, VMS, Resource

LABEL, SYSPREP_LABEL = "cfgdata", "unattendCD"
"""As KubeVirt calls discs that are given no label, and the one of Windows' answers."""
ANSWERS = ("autounattend.xml", "unattend.xml")
TRUST = "kube-root-ca.crt"
OBJECTS: dict[str, Resource] = {
    "configMap": CONFIG_MAPS, "secret": SECRETS, "account": SERVICE_ACCOUNTS, "pod": PODS,
    "machine": VMS,
}  # fmt: skip
"""Kinds of lookup for what is not kept by the node agent anyway. "token" is an account's, good for the pod's life, and
"pod" the launcher's, whatever the name."""
KINDS = ("configMap", "secret", "serviceAccount", "downwardAPI", "sysprep")


class ContentError(Exception):
    """What is missing, and the mend."""


class Content(Struct, frozen=True):
    label: str
    files: dict[str, bytes]


async def of(volume: Document, lookup: Any) -> Content | None:
    """What is on the disc of a volume; None for a volume of another kind. `lookup` is `volumes.Lookup`."""
    kind = next((kind for kind in KINDS if volume.get(kind) is not None), "")
    source: Document = volume.get(kind) or {}
    label = str(source.get("volumeLabel") or LABEL)
    match kind:
        case "configMap":
            return Content(label, await _files(kind, source.get("name"), source, lookup))
        case "secret":
            return Content(label, await _files(kind, source.get("secretName"), source, lookup))
        case "serviceAccount":
            return Content(label, await _account(str(source.get("serviceAccountName")), lookup))
        case "downwardAPI":
            return Content(label, await _downward(source, lookup))
        case "sysprep":
            return Content(SYSPREP_LABEL, await _answers(source, lookup))
        case _:
            return None


async def _files(kind: str, name: Any, source: Document, lookup: Any) -> dict[str, bytes]:
    found = await lookup(kind, str(name))
    if found is None:
        if source.get("optional"):
            return {}
        what = "ConfigMap" if kind == "configMap" else "Secret"
        raise ContentError(f"{kind} is {name!r}, but there is no such {what}: create it, or set optional")
    return files_of(found)


def files_of(found: Document) -> dict[str, bytes]:
    """A ConfigMap's or Secret's keys and what they hold."""
    if found.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    text = {key: str(value).encode() for key, value in (found.get("data") or {}).items()}
    return text | {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}


async def _account(name: str, lookup: Any) -> dict[str, bytes]:
    """As in a pod of that account."""
    account = await lookup("account", name)
    if account is None:
        raise ContentError(f"serviceAccount is {name!r}, but there is no such ServiceAccount: create it")
    token = await lookup("token", name) or {}
    trust = await lookup("configMap", TRUST)
    files = {"namespace": str(account["metadata"]["namespace"]).encode(), "token": str(token.get("token", "")).encode()}
    if trust is not None:
        files["ca.crt"] = str((trust.get("data") or {}).get("ca.crt") or "").encode()
    return files


async def _downward(source: Document, lookup: Any) -> dict[str, bytes]:
    pod = await lookup("pod", "")
    if pod is None:
        raise ContentError("downwardAPI: the guest's pod is not there (any more): start the machine again")
    try:
        return {str(each["path"]): downward.value(pod, each).encode() for each in source.get("fields") or ()}
    except downward.UnknownField as error:
        raise ContentError(f"downwardAPI: {error}") from error


async def _answers(source: Document, lookup: Any) -> dict[str, bytes]:
    kind = "configMap" if source.get("configMap") else "secret"
    name = (source.get(kind) or {}).get("name")
    files = await _files(kind, name, {}, lookup)
    if not any(key.lower() in ANSWERS for key in files):
        what = "ConfigMap" if kind == "configMap" else "Secret"
        raise ContentError(f"sysprep: {what} {name!r} has no key {' or '.join(ANSWERS)}: add what Windows is to read")
    return files


def token_request(pod: Document | None) -> Document:
    """For a token that ends with the pod."""
    spec: Document = {"expirationSeconds": 365 * 24 * 3600}
    if pod is not None:
        metadata = pod["metadata"]
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
