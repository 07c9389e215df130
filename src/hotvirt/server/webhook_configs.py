"""Validating- and MutatingWebhookConfigurations: what is wrong with one, and what it says, ready to match. Pure."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from hotvirt.kube.errors import BadRequest, Cause
from hotvirt.server import cel_conditions
from hotvirt.server.objectmeta import INVALID, REQUIRED, check_name
from hotvirt.server.selectors import LabelSelector, from_object

Document = dict[str, Any]
GROUP = "admissionregistration.k8s.io"
VALIDATING, MUTATING = f"{GROUP}/validatingwebhookconfigurations", f"{GROUP}/mutatingwebhookconfigurations"
REVIEW_VERSION = "v1"
_UNSUPPORTED, _DUPLICATE = "FieldValueNotSupported", "FieldValueDuplicate"
_CHOICES = {
    "failurePolicy": ("Fail", "Ignore"),
    "matchPolicy": ("Equivalent", "Exact"),
    "sideEffects": ("None", "NoneOnDryRun"),
    "reinvocationPolicy": ("Never", "IfNeeded"),
}
_OPERATIONS = ("*", "CREATE", "UPDATE", "DELETE", "CONNECT")


class Rule(Struct, frozen=True):
    operations: frozenset[str]
    groups: frozenset[str]
    versions: frozenset[str]
    resources: tuple[tuple[str, str], ...]  # plural and subresource
    scope: str
    names: frozenset[str] = frozenset()  # of objects; none for all


class Matching(Struct, frozen=True, kw_only=True):
    """Which writes something is about."""

    rules: tuple[Rule, ...]
    namespaces: LabelSelector
    objects: LabelSelector
    takes_equivalents: bool
    excluded: tuple[Rule, ...] = ()


class Hook(Matching, frozen=True, kw_only=True):
    """One webhook. `url` or `service` says where it is, `ca` whom to trust (PEM; "" for whom the system trusts)."""

    name: str
    url: str
    service: Document | None
    ca: str
    is_ignored_when_failing: bool
    is_reinvoked: bool
    has_side_effects: bool
    timeout: int
    conditions: tuple[tuple[str, str], ...] = ()


def read(config: Document) -> Iterator[Hook]:
    """Those of one configuration, in its order."""
    for hook in config.get("webhooks") or ():
        client = hook["clientConfig"]
        yield Hook(
            name=hook["name"],
            url=client.get("url") or "",
            service=client.get("service"),
            ca=base64.b64decode(client.get("caBundle") or "").decode(),
            rules=tuple(read_rule(rule) for rule in hook.get("rules") or ()),
            namespaces=from_object(hook.get("namespaceSelector")),
            objects=from_object(hook.get("objectSelector")),
            is_ignored_when_failing=hook.get("failurePolicy") == "Ignore",
            takes_equivalents=hook.get("matchPolicy") != "Exact",
            is_reinvoked=hook.get("reinvocationPolicy") == "IfNeeded",
            has_side_effects=hook.get("sideEffects") not in _CHOICES["sideEffects"],
            timeout=hook.get("timeoutSeconds") or 10,
            conditions=cel_conditions.read(hook),
        )


def read_rule(rule: Document) -> Rule:
    def words(key: str) -> frozenset[str]:
        return frozenset(rule.get(key) or ())

    resources = tuple((plural, sub) for plural, _, sub in (each.partition("/") for each in rule.get("resources") or ()))
    return Rule(
        words("operations"), words("apiGroups"), words("apiVersions"), resources, rule.get("scope") or "*",
        words("resourceNames"),
    )  # fmt: skip


def complete(config: Document) -> Document:
    """The selectors that are left out, as what they mean. Other defaults are the schema's."""
    hooks = config.get("webhooks")
    if not isinstance(hooks, list):
        return config
    return {**config, "webhooks": [{"namespaceSelector": {}, "objectSelector": {}, **hook} for hook in hooks]}


def check(config: Document) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, hook in enumerate(config.get("webhooks") or ()):
        at = f"webhooks[{index}]"
        name = hook.get("name") or ""
        if name in seen:
            causes.append(Cause(_DUPLICATE, f'Duplicate value: "{name}"', f"{at}.name"))
        seen.add(name)
        causes += [*_check_name(name, at), *_check_words(hook, at), *_check_client(hook.get("clientConfig") or {}, at)]
        for number, rule in enumerate(hook.get("rules") or ()):
            causes += check_rule(rule, f"{at}.rules[{number}]")
        causes += cel_conditions.check(hook, at)
    return causes


def _check_name(name: str, at: str) -> list[Cause]:
    if name and not check_name("subdomain", name) and name.count(".") >= 2:
        return []
    message = f'Invalid value: "{name}": should be a domain with at least three segments separated by dots'
    return [Cause(INVALID, message, f"{at}.name")]


def _check_words(hook: Document, at: str) -> list[Cause]:
    causes = []
    for key, words in _CHOICES.items():
        if key in hook and hook[key] not in words:
            causes.append(Cause(_UNSUPPORTED, unsupported(hook[key], words), f"{at}.{key}"))
    if "sideEffects" not in hook:
        causes.append(
            Cause(REQUIRED, "Required value: must specify one of None, NoneOnDryRun", f"{at}.sideEffects")
        )  # fmt: skip
    if REVIEW_VERSION not in (hook.get("admissionReviewVersions") or ()):
        message = f"Required value: must include {REVIEW_VERSION}, which is what this server sends"
        causes.append(Cause(REQUIRED, message, f"{at}.admissionReviewVersions"))
    timeout = hook.get("timeoutSeconds", 10)
    if not 1 <= timeout <= 30:
        message = f"Invalid value: {timeout}: the timeout value must be between 1 and 30 seconds"
        causes.append(Cause(INVALID, message, f"{at}.timeoutSeconds"))
    for key in ("namespaceSelector", "objectSelector"):
        try:
            from_object(hook.get(key))
        except BadRequest as error:
            causes.append(Cause(INVALID, f"Invalid value: {error}", f"{at}.{key}"))
    return causes


def _check_client(client: Document, at: str) -> list[Cause]:
    at = f"{at}.clientConfig"
    causes = []
    if bool(client.get("url")) == bool(client.get("service")):
        causes.append(Cause(REQUIRED, "Required value: exactly one of url or service is required", at))
    if url := client.get("url"):
        causes += [Cause(INVALID, f'Invalid value: "{url}": {why}', f"{at}.url") for why in _url_faults(url)]
    if service := client.get("service"):
        for key in ("name", "namespace"):
            if not service.get(key):
                causes.append(Cause(REQUIRED, f"Required value: service {key} is required", f"{at}.service.{key}"))
    try:
        text = base64.b64decode(client.get("caBundle") or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = "not PEM"
    if text and "-----BEGIN CERTIFICATE-----" not in text:
        message = "Invalid value: unable to load root certificates: must be PEM, coded in base64"
        causes.append(Cause(INVALID, message, f"{at}.caBundle"))
    return causes


def _url_faults(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        yield f"url must be a valid URL: {error}"
        return
    if parts.scheme != "https":
        yield "'https' is the only allowed URL scheme"
    if not host:
        yield "host must be specified"
    if parts.username or parts.password:
        yield "user information is not permitted"
    if parts.query or parts.fragment:
        yield "query parameters and fragments are not permitted"


def check_rule(rule: Document, at: str) -> list[Cause]:
    causes = [
        Cause(REQUIRED, "Required value", f"{at}.{key}")
        for key in ("operations", "apiGroups", "apiVersions", "resources")
        if not rule.get(key)
    ]
    for key in ("operations", "apiGroups", "apiVersions"):
        words = rule.get(key) or ()
        if "*" in words and len(words) > 1:
            message = "Invalid value: if '*' is present, must not specify other values"
            causes.append(Cause(INVALID, message, f"{at}.{key}"))
    for index, word in enumerate(rule.get("operations") or ()):
        if word not in _OPERATIONS:
            causes.append(Cause(_UNSUPPORTED, unsupported(word, _OPERATIONS), f"{at}.operations[{index}]"))
    scopes = ("*", "Cluster", "Namespaced")
    if rule.get("scope", "*") not in scopes:
        causes.append(Cause(_UNSUPPORTED, unsupported(rule["scope"], scopes), f"{at}.scope"))
    return causes


def unsupported(value: str, words: tuple[str, ...]) -> str:
    return f'Unsupported value: "{value}": supported values: ' + ", ".join(f'"{word}"' for word in words)
