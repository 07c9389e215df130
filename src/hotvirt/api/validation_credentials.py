"""What can be wrong with `spec.accessCredentials`: keys and passwords that a guest's agent, or cloud-init, gives to its
users. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from hotvirt.api.faults import Fault, invalid, required

Document = dict[str, Any]
KINDS = ("sshPublicKey", "userPassword")
SEEDS = {"noCloud": "cloudInitNoCloud", "configDrive": "cloudInitConfigDrive"}
"""Ways of keys that are a volume's, and that volume's source."""


def check(credentials: Sequence[Document], volumes: Sequence[Document], path: str) -> Iterator[Fault]:
    """Faults of the list at `path`. What is not supported is told elsewhere, from the table of fields."""
    for index, credential in enumerate(credentials):
        here = f"{path}[{index}]"
        given = [kind for kind in KINDS if credential.get(kind) is not None]
        if len(given) != 1:
            yield invalid(here, f"names {len(given)} of {' and '.join(KINDS)}: a credential is exactly one of them")
            continue
        yield from _credential(credential[given[0]], volumes, f"{here}.{given[0]}")


def _credential(credential: Document, volumes: Sequence[Document], path: str) -> Iterator[Fault]:
    secret = (credential.get("source") or {}).get("secret")
    if secret is None:
        yield required(f"{path}.source", "name the secret: source.secret.secretName")
    elif not secret.get("secretName"):
        yield required(f"{path}.source.secret.secretName", "name the secret that holds it")
    method = {name: value for name, value in (credential.get("propagationMethod") or {}).items() if value is not None}
    if len(method) != 1:
        which = f"one of qemuGuestAgent, {' and '.join(SEEDS)}" if path.endswith("sshPublicKey") else "qemuGuestAgent"
        yield invalid(f"{path}.propagationMethod", f"names {len(method)} methods: use {which}")
    for name, source in SEEDS.items():
        if name in method and not any(volume.get(source) is not None for volume in volumes):
            yield invalid(f"{path}.propagationMethod.{name}", f"needs a {source} volume to put the keys on: add one")
    agent = method.get("qemuGuestAgent")
    if agent is not None and path.endswith("sshPublicKey") and not agent.get("users"):
        yield required(f"{path}.propagationMethod.qemuGuestAgent.users", "name the users whose keys these are")
