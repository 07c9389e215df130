"""What single built-in kinds may not say beyond their schema, as far as something here or a client acts on it. Pure.

Each check gives every fault it finds; `kinds` says which kind has which.
"""

from collections.abc import Iterable
from typing import Any

from hotvirt.kube.errors import Cause
from hotvirt.server.objectmeta import INVALID, REQUIRED

Document = dict[str, Any]
NOT_SUPPORTED = "FieldValueNotSupported"
MOST_DATA = 1024 * 1024
_UNHEALTHY = ("AlwaysAllow", "IfHealthyBudget")
TOKEN_TYPE, TOKEN_ACCOUNT = "kubernetes.io/service-account-token", "kubernetes.io/service-account.name"
_BASIC = "kubernetes.io/basic-auth"
_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"), _BASIC: ("username", "password"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",), "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
}  # fmt: skip


def unsupported(value: Any, known: Iterable[str], at: str) -> Cause:
    names = ", ".join(f'"{each}"' for each in known)
    return Cause(NOT_SUPPORTED, f'Unsupported value: "{value}": supported values: {names}', at)


def autoscaler(new: Document, _: Document | None) -> list[Cause]:
    spec = new.get("spec") or {}
    most, fewest = spec.get("maxReplicas"), spec.get("minReplicas", 1)
    causes = []
    if not isinstance(most, int) or most < 1:
        causes.append(Cause(INVALID, f"Invalid value: {most or 0}: must be greater than 0", "spec.maxReplicas"))
    elif isinstance(fewest, int) and most < fewest:
        message = f"Invalid value: {most}: must be greater than or equal to `minReplicas`"
        causes.append(Cause(INVALID, message, "spec.maxReplicas"))
    if isinstance(fewest, int) and fewest < 0:
        causes.append(Cause(INVALID, f"Invalid value: {fewest}: must be greater than 0", "spec.minReplicas"))
    return causes


def budget(new: Document, _: Document | None) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = []
    if "minAvailable" in spec and "maxUnavailable" in spec:
        message = "Invalid value: minAvailable and maxUnavailable cannot be both set"
        causes.append(Cause(INVALID, message, "spec"))
    for key in ("minAvailable", "maxUnavailable"):
        value = spec.get(key)
        if isinstance(value, int) and value < 0:
            message = f"Invalid value: {value}: must be greater than or equal to 0"
            causes.append(Cause(INVALID, message, f"spec.{key}"))
        elif isinstance(value, str) and not (value.endswith("%") and value[:-1].isdecimal() and int(value[:-1]) <= 100):
            message = f'Invalid value: "{value}": must be a number, or per cent as in "50%", at most 100%'
            causes.append(Cause(INVALID, message, f"spec.{key}"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _UNHEALTHY:
        causes.append(unsupported(policy, _UNHEALTHY, "spec.unhealthyPodEvictionPolicy"))
    return causes


def size(new: Document) -> list[Cause]:
    """Of what a ConfigMap or Secret holds."""
    held = sum(len(v) for where in ("data", "binaryData") for v in (new.get(where) or {}).values() if v)
    if held <= MOST_DATA:
        return []
    return [Cause("FieldValueTooLong", f"Too long: may not be more than {MOST_DATA} bytes", "data")]


def token(new: Document) -> list[Cause]:
    if new.get("type") != TOKEN_TYPE or (new["metadata"].get("annotations") or {}).get(TOKEN_ACCOUNT):
        return []
    message = "Required value: say whose token it is to hold"
    return [Cause(REQUIRED, message, f"metadata.annotations[{TOKEN_ACCOUNT}]")]


def keys_of_type(new: Document) -> list[Cause]:
    """A secret of a type has the entries of its type. One of two is enough for a password's owner."""
    data = new.get("data") or {}
    wanted = _KEYS.get(str(new.get("type")), ())
    missing = [key for key in wanted if key not in data]
    if new.get("type") == _BASIC and len(missing) < len(wanted):
        return []
    return [Cause(REQUIRED, "Required value", f"data[{key}]") for key in missing]
