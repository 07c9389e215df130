"""Keys and passwords from Secrets for a running guest's users: those of `spec.accessCredentials` that its agent gives.

Each time the agent has connected, and each time one of the secrets changes, the users' authorized keys become those of
the secrets, and the passwords in them are set. Giving them twice changes nothing, so what was given is only remembered
to spare the guest; a restart of the home gives all once more. The condition AccessCredentialsSynchronized tells whether
the guest has them. Of one instance one worker does this at a time. Nothing of a secret is logged or told.
"""

import base64
import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct, json

from hotvirt.kube import conditions
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import Conflict, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers
from hotvirt.kube.reconciler import DONE, Controller, Result, in_index
from hotvirt.kube.resources import SECRETS, VMIS
from hotvirt.kube.times import Clock
from hotvirt.node import sshkeys
from hotvirt.node.agent import NodeAgent
from hotvirt.qemu.errors import AgentRefused, QemuError
from hotvirt.qemu.guestagent import GuestAgent, clean

log = logging.getLogger(__name__)

CONDITION = "AccessCredentialsSynchronized"
BY_SECRET = "node-credentials-secret"  # noqa: S105  # an index
RETRY = 15.0
PATIENCE = 30.0
"""Seconds for the agent: it starts a program for each password."""


class CredentialsError(Exception):
    """The text says what is missing and the mend."""


class Wanted(Struct, frozen=True):
    """Of each user: all keys, and the password."""

    keys: dict[str, tuple[str, ...]]
    passwords: dict[str, str]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.encode([self.keys, self.passwords])).hexdigest()


class Credentials:
    def __init__(
        self, client: Client, informers: SharedInformers, *, agent: NodeAgent, node: str, recorder: Recorder,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._client, self._agent, self._node = client, agent, node
        self._recorder, self._clock = recorder, clock
        self._vmis, self._secrets = informers.of(VMIS), informers.of(SECRETS)
        self._given: dict[Key, tuple[str, str]] = {}
        self._vmis.add_index(BY_SECRET, secret_keys)
        self.controller = Controller("access-credentials", self.reconcile, workers=2)
        self.controller.watch(self._vmis, when=lambda change: bool(_credentials(change.new or change.old or {})))
        self.controller.watch(self._secrets, in_index(self._vmis, BY_SECRET))

    async def reconcile(self, key: Key) -> Result:
        vmi = self._vmis.get(key.name, key.namespace)
        connected = conditions.of(vmi, "AgentConnected")
        here = vmi is not None and (vmi.get("status") or {}).get("nodeName") == self._node
        if vmi is None or not here or not _credentials(vmi) or connected is None or connected["status"] != "True":
            self._given.pop(key, None)
            return DONE
        guest = self._agent.guests.get(key)
        if guest is None or (agent := guest.answering) is None:
            return Result(requeue_after=RETRY)
        try:
            wanted = wanted_by(vmi["spec"], lambda name: self._secrets.get(name, key.namespace))
            # After a reboot the agent connects anew, to a guest that may have forgotten everything.
            now = (f"{vmi['metadata']['uid']} {connected.get('lastTransitionTime')}", wanted.digest)
            if self._given.get(key) != now:
                await give(agent, wanted)
                self._given[key] = now
        except CredentialsError as error:
            return await self._tell(vmi, why=str(error))
        except QemuError as error:
            return await self._tell(vmi, why=f"the guest's agent did not take them: {clean(error)}")
        return await self._tell(vmi, why="")

    async def _tell(self, vmi: Document, *, why: str) -> Result:
        """Writes the condition where it differs; comes back where something is wrong."""
        old = (vmi.get("status") or {}).get("conditions")
        reason = "SyncFailed" if why else ""
        new = conditions.put(old, CONDITION, not why, now=self._clock(), reason=reason, message=why)
        again = Result(requeue_after=RETRY) if why else DONE
        if new == list(old or ()):
            return again
        metadata = vmi["metadata"]
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"conditions": new}}
        try:
            await self._client.patch(VMIS, metadata["name"], patch, metadata["namespace"])
        except Conflict:
            return Result(requeue_after=0.5)
        except NotFound:
            return DONE
        if why:
            self._recorder.event(vmi, "Warning", "AccessCredentialsSyncFailed", why)
        else:
            self._recorder.event(vmi, "Normal", "AccessCredentialsSyncSuccess", "the guest has the keys and passwords")
        return again


def wanted_by(spec: Document, secret: Callable[[str], Document | None]) -> Wanted:
    """What the guest's users are to have; `secret` gives a secret by its name, or None."""
    keys: dict[str, list[str]] = {}
    passwords: dict[str, str] = {}
    for credential in _by_agent(spec):
        kind = "sshPublicKey" if credential.get("sshPublicKey") else "userPassword"
        name = sshkeys.secret_of(credential)
        found = secret(name)
        if found is None:
            raise CredentialsError(f"there is no secret {name!r} for {kind}: create it")
        if kind == "userPassword":
            passwords |= sshkeys.content(found)
            continue
        for user in _users(credential):
            keys.setdefault(user, []).extend(sshkeys.lines(found))
    return Wanted({user: tuple(dict.fromkeys(each)) for user, each in keys.items()}, passwords)


async def give(agent: GuestAgent, wanted: Wanted) -> None:
    """All of it, whatever of it is there already. Raises the first refusal, after trying the rest."""
    commands: list[tuple[str, dict[str, Any]]] = [
        ("guest-ssh-add-authorized-keys", {"username": user, "keys": list(keys), "reset": True})
        for user, keys in wanted.keys.items()
    ]
    for user, password in wanted.passwords.items():
        encoded = base64.b64encode(password.encode()).decode()
        commands.append(("guest-set-user-password", {"username": user, "password": encoded, "crypted": False}))
    if not commands:
        return
    outcomes = await agent.batch(commands, timeout=PATIENCE)
    for (_, arguments), outcome in zip(commands, outcomes, strict=True):
        if isinstance(outcome, AgentRefused):
            raise CredentialsError(
                f"user {arguments['username']}: {clean(outcome)}; is there such a user in the guest, and does its "
                "agent allow this?"
            )


def secret_keys(vmi: Document) -> Iterable[str]:
    """The secrets that an instance gets credentials from."""
    return [str(Key(vmi["metadata"]["namespace"], sshkeys.secret_of(each))) for each in _credentials(vmi)]


def _credentials(vmi: Document) -> list[Document]:
    return _by_agent(vmi.get("spec") or {})


def _by_agent(spec: Document) -> list[Document]:
    """Not those that are on a disc of cloud-init's, see `sshkeys`."""
    return [each for each in spec.get("accessCredentials") or () if not sshkeys.way(each)]


def _users(credential: Document) -> list[str]:
    agent = ((credential.get("sshPublicKey") or {}).get("propagationMethod") or {}).get("qemuGuestAgent") or {}
    return [str(user) for user in agent.get("users") or ()]
