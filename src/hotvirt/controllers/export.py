"""VirtualMachineExport: what it names is offered for download until its time is over.

It is ready while nothing writes to its disks: a machine is to be stopped, a claim of a running one is not offered. The
token is in a Secret, made here when none is named. Of one export one worker does this at a time.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from msgspec import Struct

from hotvirt.api import disks as api_disks
from hotvirt.api import exports
from hotvirt.api.exports import Disk
from hotvirt.api.validation_sets import seconds
from hotvirt.kube import conditions, owners, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import CLAIMS, EXPORTS, SECRETS, SNAPSHOT_CONTENTS, SNAPSHOTS, VMIS, VMS
from hotvirt.kube.times import Clock, parse, stamp

FINAL = ("Succeeded", "Failed")
TOKEN_BYTES = 20
LOOK_AGAIN = 1.0
"""Seconds between looks for a Secret that is still to come: Secrets are not watched."""


class Address(Struct, frozen=True):
    """Of the server that downloads come from, and who signed its certificate (PEM)."""

    url: str
    ca: str


class Found(Struct, frozen=True):
    """What an export's source has. `why` it is not offered now, "" when it is."""

    disks: list[Disk] = []
    machine: str = ""
    why: str = ""
    is_skipped: bool = False


class ExportController:
    def __init__(
        self, client: Client, informers: SharedInformers, *, recorder: Recorder, clock: Clock,
        address: Callable[[], Address | None],
    ) -> None:  # fmt: skip
        self._client, self._recorder, self._clock, self._address = client, recorder, clock, address
        self._exports, self._claims = informers.of(EXPORTS), informers.of(CLAIMS)
        self._vms, self._vmis = informers.of(VMS), informers.of(VMIS)
        self._snapshots, self._contents = informers.of(SNAPSHOTS), informers.of(SNAPSHOT_CONTENTS)
        self.controller = Controller("vmexport", self.reconcile, workers=2)
        self.controller.watch(self._exports)
        for informer in (self._claims, self._vms, self._vmis, self._snapshots):
            self.controller.watch(informer, self._of_namespace)
        self.controller.needs(self._contents)

    async def reconcile(self, key: Key) -> Result:
        export = self._exports.get(key.name, key.namespace)
        if export is None or export["metadata"].get("deletionTimestamp"):
            return DONE
        now = self._clock()
        end = ends_at(export)
        if now >= end:
            self._recorder.event(export, "Normal", "ExportExpired", "its time (ttlDuration) is over")
            with suppress(NotFound):
                await self._client.delete(EXPORTS, key.name, key.namespace)
            return DONE
        found = self._find(export)
        why = found.why or await self._token(export)
        await self._tell(export, found, why, end)
        left = (end - now).total_seconds()
        return Result(requeue_after=min(LOOK_AGAIN, left) if why and not found.why else left)

    def _find(self, export: Document) -> Found:
        source, namespace = export["spec"]["source"], export["metadata"]["namespace"]
        name = source["name"]
        if source["kind"] == "PersistentVolumeClaim":
            found = exports.of_claim_with(name, self._vms.list(namespace))
            return Found(found, why=self._obstacle(namespace, name))
        if source["kind"] == VMS.kind:
            return self._machine(namespace, name)
        snapshot = self._snapshots.get(name, namespace)
        status = (snapshot or {}).get("status") or {}
        content = self._contents.get(str(status.get("virtualMachineSnapshotContentName")), namespace)
        if snapshot is None or content is None or not status.get("readyToUse"):
            return Found(why=f"VirtualMachineSnapshot {name} does not exist, or is not ready yet")
        found = exports.of_content(content)
        machine = content["spec"]["source"]["virtualMachine"]["metadata"]["name"]
        return Found(found, machine, "" if found else "the snapshot has no disks", is_skipped=not found)

    def _machine(self, namespace: str, name: str) -> Found:
        vm, vmi = self._vms.get(name, namespace), self._vmis.get(name, namespace)
        if vm is None:
            return Found(why=f"VirtualMachine {name} does not exist")
        if vmi is not None and (vmi.get("status") or {}).get("phase") not in FINAL:
            return Found(machine=name, why=f"VM {name} runs: stop it (hotvirt stop {name}), or export a snapshot of it")
        found = exports.of_machine(vm)
        if not found:
            return Found(machine=name, why="the machine has no disks on claims", is_skipped=True)
        whys = (self._obstacle(namespace, disk.name) for disk in found)
        return Found(found, name, next((why for why in whys if why), ""))

    def _obstacle(self, namespace: str, name: str) -> str:
        claim = self._claims.get(name, namespace)
        if claim is None:
            return f"PersistentVolumeClaim {name} does not exist"
        if (claim.get("status") or {}).get("phase") != "Bound":
            return f"PersistentVolumeClaim {name} is not bound yet"
        for vmi in self._vmis.list(namespace):
            if (vmi.get("status") or {}).get("phase") in FINAL:
                continue
            if any(api_disks.claim(v) == name and not v.get("ephemeral") for v in vmi["spec"].get("volumes") or ()):
                return f"PersistentVolumeClaim {name} is in use by VM {vmi['metadata']['name']}: stop it first"
        return ""

    async def _token(self, export: Document) -> str:
        """Sees to the Secret; why there is none yet."""
        metadata, name = export["metadata"], exports.token_secret(export)
        try:
            secret = await self._client.get(SECRETS, name, metadata["namespace"])
        except NotFound:
            if export["spec"].get("tokenSecretRef"):
                return f"Secret {name} does not exist: create it, with a `token`"
            made = {
                "apiVersion": "v1", "kind": "Secret", "stringData": {"token": secrets.token_hex(TOKEN_BYTES)},
                "metadata": {"name": name, "ownerReferences": [owners.reference(EXPORTS, export)]},
            }  # fmt: skip
            with suppress(AlreadyExists):
                await self._client.create(SECRETS, made, metadata["namespace"])
            return ""
        return "" if exports.token(secret) else f"Secret {name} has no `token`: add one"

    async def _tell(self, export: Document, found: Found, why: str, end: datetime) -> None:
        old, now = export.get("status") or {}, self._clock()
        address = self._address()
        phase = "Skipped" if found.is_skipped else "Pending"
        links: Document | None = None
        if not why and address is not None:
            phase = "Ready"
            link = exports.links(
                export, found.disks, base=address.url, cert=address.ca, has_machine=bool(found.machine)
            )
            links = {"internal": link, "external": link}
        elif not why:
            why = "this installation has no address that exports can be downloaded from"
        is_ready = phase == "Ready"
        ready = conditions.put(
            old.get("conditions"), "Ready", is_ready, now=now, reason="PodReady" if is_ready else "Pending",
            message="" if is_ready else why,
        )  # fmt: skip
        new = {
            "phase": phase, "conditions": ready, "links": links, "ttlExpirationTime": stamp(end),
            "tokenSecretRef": exports.token_secret(export), "virtualMachineName": found.machine or None,
        }  # fmt: skip
        if not (changed := statuses.news(export, new)):
            return
        if phase != old.get("phase"):
            said = "can be downloaded" if is_ready else why
            self._recorder.event(export, "Normal", f"Export{phase}", said)
        with suppress(NotFound):
            await statuses.write(self._client, self._exports, export, changed, guarded=False)

    def _of_namespace(self, obj: Document) -> list[Key]:
        return [key_of(each) for each in self._exports.list(obj["metadata"]["namespace"])]


def ends_at(export: Document) -> datetime:
    text = export["spec"].get("ttlDuration")
    began = parse(export["metadata"].get("creationTimestamp"))
    assert began is not None, "the API stamps each object"
    return began + timedelta(seconds=seconds(text) if text else exports.TTL)
