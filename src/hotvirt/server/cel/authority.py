"""Kubernetes' authorizer library: expressions that ask what somebody may do, the one who writes or a service account.

A check is a map like the values of `kinds`, grown step by step (`authorizer.group('').resource('pods').check('get')`).
Who answers is set around an evaluation (`asked_of`): functions of the CEL environment, which is made once, have no
other way to know. Evaluations are synchronous, on one thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hotvirt.kube.admission import User
from hotvirt.server.rbac import Attributes

Value = dict[str, Any]
Authorize = Callable[[User, Attributes], bool]
_answering: list[Authorize | None] = [None]


@contextmanager
def asked_of(authorize: Authorize | None) -> Iterator[None]:
    _answering.append(authorize)
    try:
        yield
    finally:
        _answering.pop()


def saying(word: str) -> Callable[[Value, str], Value]:
    """A step of a check: `resource('pods')`."""
    return lambda value, text: {**value, word: text}


def account(value: Value, namespace: str, name: str) -> Value:
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return {**value, "user": {"username": f"system:serviceaccount:{namespace}:{name}", "groups": groups}}


def check(value: Value, verb: str) -> Value:
    authorize = _answering[-1]
    if authorize is None:
        raise ValueError("nobody can be asked about permissions here")
    user = value["user"]
    who = User(user.get("username") or "", tuple(user.get("groups") or ()), user.get("uid") or "")
    words = ("path",) if "path" in value else ("group", "resource", "subresource", "namespace", "name")
    asked = Attributes(verb=verb, **{word: value[word] for word in words if word in value})
    return {"": "decision", "is": authorize(who, asked)}


def allowed(decision: Value) -> bool:
    return bool(decision["is"])


def reason(_: Value) -> str:
    return ""


def errored(_: Value) -> bool:
    return False


def error(_: Value) -> str:
    return ""
