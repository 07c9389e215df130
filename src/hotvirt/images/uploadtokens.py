"""Tokens that let their bearer upload into one claim, for some minutes. Pure; the key is the home's own.

A token names the claim by its uid too, so it is of no use for a later one of the same name.
"""

import base64
import hashlib
import hmac
import json
from typing import Any

from msgspec import Struct

VALID = 300
"""Seconds, as CDI has it. It is looked at when an upload begins."""


class Target(Struct, frozen=True):
    namespace: str
    name: str
    uid: str


def sign(key: bytes, target: Target, *, now: float) -> str:
    said = {"namespace": target.namespace, "name": target.name, "uid": target.uid, "expires": int(now) + VALID}
    body = _text(json.dumps(said).encode())
    return f"{body}.{_text(_mac(key, body))}"


def verify(key: bytes, token: str, *, now: float) -> Target | None:
    """None for one that is not ours or too old."""
    body, _, mac = token.partition(".")
    try:
        if not hmac.compare_digest(_bytes(mac), _mac(key, body)):
            return None
        said: dict[str, Any] = json.loads(_bytes(body))
    except ValueError:
        return None
    if said["expires"] < now:
        return None
    return Target(str(said["namespace"]), str(said["name"]), str(said["uid"]))


def _mac(key: bytes, body: str) -> bytes:
    return hmac.digest(key, body.encode(), hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
