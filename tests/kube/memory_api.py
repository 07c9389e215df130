"""A Kubernetes API in memory, for tests of what speaks to one: it implements `hotvirt.kube.client.Client`.

Versions, generations, conflicts, status subresources, finalizers and owner references behave as the API server's do.
`writes` records every write that changed something, so that tests can count them; `compact()` makes every watch end in
Gone, `down` makes every call Unreachable, and `refuse` holds errors that the next calls raise instead.
"""

import asyncio
import itertools
from collections import Counter

import jsonpatch
import msgspec

from hotvirt.kube.client import WatchEvent
from hotvirt.kube.errors import AlreadyExists, ApiError, Conflict, Gone, Invalid, NotFound, Unreachable
from hotvirt.kube.resources import PODS, POOLS, REPLICA_SETS, VMS

WITH_STATUS = {VMS.plural, PODS.plural, POOLS.plural, REPLICA_SETS.plural, "nodes", "persistentvolumeclaims"}


def fresh(document):
    return msgspec.json.decode(msgspec.json.encode(document))


def merged(target, patch):
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


class MemoryApi:
    def __init__(self):
        self.version = 0
        self.objects = {}  # (plural, namespace, name) -> document
        self.log = []  # (version, plural, namespace, event type, document)
        self.floor = 0
        self.writes = []  # (verb, plural, name)
        self.down = False
        self.refuse = []
        self.lists = Counter()
        self.watches = Counter()
        self._changed = asyncio.Event()
        self._uids = itertools.count(1)
        self._epoch = 0

    # What tests use

    def count(self, verb="", plural=""):
        return sum((not verb or v == verb) and (not plural or p == plural) for v, p, _ in self.writes)

    def compact(self):
        self.floor = self.version
        self._epoch += 1
        self._wake()

    def hang_up(self):
        """Ends every watch stream, as servers do from time to time."""
        self._epoch -= 1000
        self._wake()

    def all(self, resource):
        return [doc for (plural, _, _), doc in self.objects.items() if plural == resource.plural]

    def find(self, resource, name, namespace="default"):
        return self.objects.get((resource.plural, namespace if resource.namespaced else "", name))

    # Client

    async def get(self, resource, name, namespace=None):
        self._gate()
        return self._known(resource, name, namespace)

    async def list(self, resource, namespace=None, *, label_selector="", field_selector="", limit=0, continue_token=""):
        self._gate()
        self.lists[resource.plural] += 1
        items = [o for o in self.all(resource) if namespace in (None, o["metadata"].get("namespace"))]
        items = [o for o in items if selected(o, label_selector)]
        return {"items": items, "metadata": {"resourceVersion": str(self.version)}}

    async def watch(self, resource, namespace=None, *, resource_version, label_selector="", field_selector=""):
        self._gate()
        self.watches[resource.plural] += 1
        at, epoch = int(resource_version or 0), self._epoch
        while True:
            if at < self.floor:
                raise Gone("too old resource version")
            if self._epoch != epoch:
                return
            if self.down:
                raise Unreachable("memory: connection lost")
            for version, plural, where, kind, doc in list(self.log):
                if version > at and plural == resource.plural and namespace in (None, where):
                    at = version
                    if selected(doc, label_selector):
                        yield WatchEvent(kind, doc)
            changed = self._changed
            await changed.wait()

    async def create(self, resource, obj, namespace=None, *, dry_run=False):
        self._gate()
        metadata = obj["metadata"]
        where = (namespace or metadata.get("namespace") or "default") if resource.namespaced else ""
        key = (resource.plural, where, metadata["name"])
        if key in self.objects:
            raise AlreadyExists(f'{resource.plural} "{metadata["name"]}" already exists')
        doc = fresh(obj)
        doc.setdefault("apiVersion", resource.api_version)
        doc.setdefault("kind", resource.kind)
        doc["metadata"] |= {
            "uid": f"uid-{next(self._uids)}", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        if resource.namespaced:
            doc["metadata"]["namespace"] = where
        return self._put("create", resource, key, doc, "ADDED")

    async def update(self, resource, obj, *, subresource=""):
        self._gate()
        metadata = obj["metadata"]
        old = self._known(resource, metadata["name"], metadata.get("namespace"))
        return self._change("update", resource, old, fresh(obj), subresource)

    async def patch(
        self, resource, name, patch, namespace=None, *, kind="merge", subresource="", field_manager="", force=False,
        dry_run=False,
    ):  # fmt: skip
        self._gate()
        old = self._known(resource, name, namespace)
        if kind == "json":
            try:
                new = jsonpatch.apply_patch(fresh(old), patch)
            except jsonpatch.JsonPatchException as error:
                raise Invalid(f"the patch does not apply: {error}") from error
        else:
            new = merged(fresh(old), fresh(patch))
        return self._change("patch", resource, old, new, subresource)

    async def post(self, resource, name, subresource, body, namespace=None):
        self._gate()
        assert subresource == "binding"
        old = self._known(resource, name, namespace)
        if old["spec"].get("nodeName"):
            raise Conflict(f"pod {name} is on a node already")
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        status = {**old.get("status", {}), "conditions": [scheduled]}
        bound = {**old, "spec": {**old["spec"], "nodeName": body["target"]["name"]}, "status": status}
        self._put("bind", resource, self._key(resource, old), fresh(bound), "MODIFIED")
        return {"kind": "Status", "status": "Success"}

    async def delete(
        self, resource, name, namespace=None, *, propagation="Background", uid="", grace_period_seconds=None
    ):
        self._gate()
        old = self._known(resource, name, namespace)
        if uid and old["metadata"]["uid"] != uid:
            raise Conflict("the uid is another")
        key = self._key(resource, old)
        if old["metadata"].get("finalizers"):
            if "deletionTimestamp" not in old["metadata"]:
                new = fresh(old)
                new["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z"
                return self._put("delete", resource, key, new, "MODIFIED")
            return old
        self.writes.append(("delete", resource.plural, name))
        self._remove(resource, key)
        return old

    # Inside

    def _gate(self):
        if self.down:
            raise Unreachable("memory: connection refused")
        if self.refuse:
            error = self.refuse.pop(0)
            if error is not None:
                raise error

    def _key(self, resource, doc):
        return (resource.plural, doc["metadata"].get("namespace", ""), doc["metadata"]["name"])

    def _known(self, resource, name, namespace):
        key = (resource.plural, (namespace or "default") if resource.namespaced else "", name)
        if key not in self.objects:
            raise NotFound(f'{resource.plural} "{name}" not found', kind=resource.kind, name=name)
        return self.objects[key]

    def _change(self, verb, resource, old, new, subresource):
        wanted = new["metadata"].get("resourceVersion")
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            raise Conflict(f"{resource.plural}: the object has been modified")
        if resource.plural in WITH_STATUS:
            if subresource == "status":
                new = {**old, "status": new.get("status", {})}
            else:
                new = {k: v for k, v in new.items() if k != "status"}
                new |= {"status": old["status"]} if "status" in old else {}
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}}
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        key = self._key(resource, old)
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            self.writes.append((verb, resource.plural, key[2]))
            self._remove(resource, key)
            return new
        return self._put(verb, resource, key, new, "MODIFIED")

    def _put(self, verb, resource, key, doc, kind):
        self.version += 1
        doc["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = doc
        self.writes.append((verb, resource.plural, key[2]))
        self.log.append((self.version, resource.plural, key[1], kind, doc))
        self._wake()
        return doc

    def _remove(self, resource, key):
        doc = self.objects.pop(key)
        self.version += 1
        last = {**doc, "metadata": {**doc["metadata"], "resourceVersion": str(self.version)}}
        self.log.append((self.version, resource.plural, key[1], "DELETED", last))
        self._wake()

    def _wake(self):
        self._changed.set()
        self._changed = asyncio.Event()


def selected(doc, selector):
    labels = doc["metadata"].get("labels") or {}
    return all(labels.get(term.split("=")[0]) == term.split("=")[1] for term in selector.split(",") if term)


__all__ = ["ApiError", "MemoryApi", "merged"]
