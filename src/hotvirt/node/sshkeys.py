"""SSH keys of `spec.accessCredentials`: what a secret holds of them, and which go onto a disc of cloud-init's.

Those are given by cloud-init once, to the default user of its image; keys that are to follow their secret are given by
the guest's agent, see `credentials`.
"""

import base64
from collections.abc import Callable
from typing import Any

from hotvirt.api.validation_credentials import SEEDS

Document = dict[str, Any]


class KeysError(Exception):
    """The text says what is missing and the mend."""


def way(credential: Document) -> str:
    """The volume source that a credential's keys go to; "" for one that the agent gives."""
    method = (credential.get("sshPublicKey") or {}).get("propagationMethod") or {}
    return next((source for name, source in SEEDS.items() if method.get(name) is not None), "")


def secret_of(credential: Document) -> str:
    given = credential.get("sshPublicKey") or credential.get("userPassword") or {}
    return str(((given.get("source") or {}).get("secret") or {}).get("secretName") or "")


def content(secret: Document) -> dict[str, str]:
    data = secret.get("data") or {}
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}


def lines(secret: Document) -> list[str]:
    """The keys in a secret's values, one a line."""
    found = [line.strip() for text in content(secret).values() for line in text.splitlines()]
    return [line for line in found if line and not line.startswith("#")]


async def of_seed(spec: Document, source: str, lookup: Callable[[str, str], Any]) -> list[str]:
    """The keys for a volume of this source, each once."""
    found: list[str] = []
    for credential in spec.get("accessCredentials") or ():
        if way(credential) == source:
            secret = await lookup("secret", name := secret_of(credential))
            if secret is None:
                raise KeysError(f"accessCredentials name the secret {name!r}, and there is none: create it")
            found += lines(secret)
    return list(dict.fromkeys(found))


def metadata(keys: list[str], source: str) -> Document:
    """As cloud-init reads them, by its kind of disc. Pure."""
    if not keys:
        return {}
    if source == SEEDS["configDrive"]:
        return {"public_keys": {f"key-{number}": key for number, key in enumerate(keys)}}
    return {"public-keys": keys}
