"""AdmissionReview (admission.k8s.io/v1): the question as a document, and what an answer means. Pure."""

import base64
import binascii
from typing import Any

import msgspec
from msgspec import Struct

from hotvirt.kube.errors import ApiError, from_status
from hotvirt.server.calls import Call
from hotvirt.server.registry import Served

Document = dict[str, Any]
API_VERSION = "admission.k8s.io/v1"
_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class BadAnswer(Exception):
    """The answer is no AdmissionReview that answers the question. The text says why."""


class Answer(Struct, frozen=True):
    """`refusal` is set when the write is not allowed; `patch` holds JSON patch operations."""

    refusal: ApiError | None = None
    patch: list[Any] = []
    warnings: tuple[str, ...] = ()


def question(
    call: Call, operation: str, new: Document | None, old: Document | None, *, form: Served, uid: str
) -> Document:
    """The objects are in the version of `form`. Of a CONNECT, `new` says what is asked for: it has no metadata."""
    meta = (new or old or {}).get("metadata") or {}
    name, is_namespace = meta.get("name") or call.name, call.served.store == "/namespaces"
    request: Document = {
        "uid": uid,
        **_about(form, "kind", "resource"),
        **_about(call.served, "requestKind", "requestResource"),
        "name": name,
        "operation": operation,
        "userInfo": _user(call),
        "object": new,
        "oldObject": old,
        "dryRun": call.dry_run,
        "options": None if operation == "CONNECT" else _options(call, operation),
    }
    if space := name if is_namespace else call.namespace:
        request["namespace"] = space
    if operation == "CONNECT" and new:
        request["kind"] = request["requestKind"] = {"group": "", "version": new["apiVersion"], "kind": new["kind"]}
    if call.subresource:
        request["subResource"] = request["requestSubResource"] = call.subresource
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "request": request}


def read(answer: Any, *, uid: str, name: str) -> Answer:
    """What webhook `name` says. BadAnswer when it says nothing that can be understood."""
    if not isinstance(answer, dict) or (answer.get("apiVersion"), answer.get("kind")) != (
        API_VERSION, "AdmissionReview",
    ):  # fmt: skip
        raise BadAnswer(f"the answer must be an AdmissionReview of {API_VERSION}")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise BadAnswer("the answer has no response")
    if response.get("uid") != uid:
        raise BadAnswer(f'expected response.uid="{uid}", got "{response.get("uid")}"')
    warnings = tuple(text for text in response.get("warnings") or () if isinstance(text, str))
    if response.get("allowed") is not True:
        return Answer(refusal=_refusal(response.get("status"), name), warnings=warnings)
    return Answer(patch=_patch(response), warnings=warnings)


def _patch(response: Document) -> list[Any]:
    coded, kind = response.get("patch"), response.get("patchType")
    if not coded:
        return []
    if kind != "JSONPatch":
        raise BadAnswer(f"response.patchType must be JSONPatch, got {kind!r}")
    try:
        operations = msgspec.json.decode(base64.b64decode(coded, validate=True))
    except (binascii.Error, TypeError, ValueError) as error:
        raise BadAnswer(f"response.patch must be JSON, coded in base64: {error}") from error
    if not isinstance(operations, list):
        raise BadAnswer("response.patch must be a list of operations")
    return operations


def _refusal(status: Any, name: str) -> ApiError:
    status = status if isinstance(status, dict) else {}
    said = status.get("message") or status.get("reason")
    text = f'admission webhook "{name}" denied the request' + (f": {said}" if said else " without explanation")
    code = status.get("code")
    if not isinstance(code, int) or not 400 <= code < 600:
        code = 400
    details = status.get("details")
    return from_status(
        {
            "code": code, "message": text, "reason": status.get("reason") or "",
            "details": details if isinstance(details, dict) else {},
        },
        code,
    )  # fmt: skip


def _about(served: Served, kind: str, resource: str) -> Document:
    known = served.resource
    head = {"group": known.group, "version": known.version}
    return {kind: {**head, "kind": known.kind}, resource: {**head, "resource": known.plural}}


def _user(call: Call) -> Document:
    user = call.user
    known: Document = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": user.extra}
    return {key: value for key, value in known.items() if value}


def _options(call: Call, operation: str) -> Document:
    options: Document = {"kind": "PatchOptions" if call.is_apply else _OPTIONS[operation]}
    options["apiVersion"] = "meta.k8s.io/v1"
    if call.dry_run:
        options["dryRun"] = ["All"]
    if call.field_manager and operation != "DELETE":
        options["fieldManager"] = call.field_manager
    return options
