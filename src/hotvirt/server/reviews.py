"""The kinds that are questions: access reviews, rules reviews, token reviews, who am I."""

from collections.abc import Iterable
from typing import Any

from hotvirt.kube.admission import User
from hotvirt.kube.errors import BadRequest, MethodNotAllowed, Unauthorized
from hotvirt.server.access import Access, Attributes
from hotvirt.server.calls import Call
from hotvirt.server.rbac import Rule
from hotvirt.server.tokens import AUDIENCES, Tokens

Document = dict[str, Any]


async def answer(call: Call, body: Document, access: Access, tokens: Tokens) -> Document:
    """`body` has the shape of its kind (`bodies.check`)."""
    spec = body.get("spec") or {}
    match call.served.resource.plural:
        case "selfsubjectaccessreviews":
            status = _decide(access, call.user, spec)
        case "subjectaccessreviews" | "localsubjectaccessreviews":
            status = _decide(access, _subject(spec), _local(spec, call.namespace))
        case "selfsubjectrulesreviews":
            status = _rules(access, call.user, str(spec.get("namespace") or ""))
        case "selfsubjectreviews":
            status = {"userInfo": _user_info(call.user)}
        case "tokenreviews":
            status = _token(tokens, spec)
        case other:
            raise MethodNotAllowed(f"{other} can't be asked here")
    resource = call.served.resource
    return {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": {k: v for k, v in (body.get("metadata") or {}).items() if k in ("name", "namespace")},
        "spec": spec,
        "status": status,
    }


def _decide(access: Access, user: User, spec: Document) -> Document:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if bool(resource) == bool(path):
        raise BadRequest("spec: exactly one of nonResourceAttributes or resourceAttributes must be specified")
    given = {k: str(v) for k, v in (resource or path or {}).items() if isinstance(v, str)}
    known = ("verb", "group", "version", "resource", "subresource", "namespace", "name", "path")
    asked = Attributes(**{"verb": "", **{k: v for k, v in given.items() if k in known}})
    allowed = access.may(user, asked)
    return {"allowed": allowed} if allowed else {"allowed": False, "reason": ""}


def _subject(spec: Document) -> User:
    if not spec.get("user") and not spec.get("groups"):
        raise BadRequest("spec: at least one of user or groups must be specified")
    extra = spec.get("extra")
    return User(
        str(spec.get("user") or ""),
        tuple(map(str, spec.get("groups") or ())),
        str(spec.get("uid") or ""),
        extra if isinstance(extra, dict) else {},
    )


def _local(spec: Document, namespace: str) -> Document:
    attributes = spec.get("resourceAttributes")
    if namespace and isinstance(attributes, dict) and attributes.get("namespace") != namespace:
        raise BadRequest(f"spec.resourceAttributes.namespace must be the request's, {namespace}")
    return spec


def _rules(access: Access, user: User, namespace: str) -> Document:
    if not namespace:
        raise BadRequest("spec.namespace: no namespace on request")
    rules = [r for grant in access.grants(user) if grant.namespace in ("", namespace) for r in grant.rules]
    return {
        "incomplete": False,
        "resourceRules": _resource_rules(r for r in rules if r.resources),
        "nonResourceRules": [{"verbs": sorted(r.verbs), "nonResourceURLs": sorted(r.paths)} for r in rules if r.paths],
    }


def _resource_rules(rules: Iterable[Rule]) -> list[Document]:
    shown = []
    for rule in rules:
        one: Document = {
            "verbs": sorted(rule.verbs), "apiGroups": sorted(rule.groups), "resources": sorted(rule.resources),
        }  # fmt: skip
        if rule.names:
            one["resourceNames"] = sorted(rule.names)
        if one not in shown:
            shown.append(one)
    return shown


def _token(tokens: Tokens, spec: Document) -> Document:
    audiences = tuple(map(str, spec.get("audiences") or ())) or AUDIENCES
    try:
        user = tokens.user_of(str(spec.get("token") or ""), audiences)
    except Unauthorized as error:
        return {"authenticated": False, "error": error.message}
    return {"authenticated": True, "user": _user_info(user), "audiences": list(audiences)}


def _user_info(user: User) -> Document:
    info: Document = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = user.extra
    return info
