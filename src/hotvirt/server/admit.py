"""The way of a document from what was sent to what is stored: schema, plug-ins, rules. Every fault is reported at once.

Order: prune and default by schema, types, the kind's defaults, mutating plug-ins, defaults again, mutating webhooks,
the rest, the validating policies, and last the validating webhooks. Never writes; plug-ins are awaited one after the
other.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from msgspec import structs

from hotvirt.kube.admission import Admission, AdmissionRequest
from hotvirt.kube.errors import BadRequest, Cause, Forbidden, TooManyRequests
from hotvirt.server import kinds, limits, objectmeta
from hotvirt.server.calls import Call
from hotvirt.server.policies import Policies
from hotvirt.server.schema import field_warnings, invalid, strict_error
from hotvirt.server.schema_checks import TYPE
from hotvirt.server.webhooks import Webhooks

Document = dict[str, Any]
Operation = Literal["CREATE", "UPDATE", "DELETE"]


class Chain:
    """`lookup` gives the objects of another kind by its store name, for defaults that depend on them."""

    def __init__(
        self,
        admissions: Sequence[Admission],
        lookup: Callable[[str], Iterable[Document]],
        webhooks: Webhooks | None = None,
        policies: Policies | None = None,
    ) -> None:
        self._lookup, self._webhooks, self._policies = lookup, webhooks, policies
        self._plugins: dict[tuple[str, str], list[Admission]] = {}
        for admission in admissions:
            for resource in admission.resources:
                known = self._plugins.setdefault((resource.group, resource.plural), [])
                if admission not in known:
                    known.append(admission)

    async def admit(self, call: Call, operation: Operation, new: Document, old: Document | None) -> Document:
        """`new` (in the version it was sent) as it may be stored. Raises Invalid, Forbidden or BadRequest."""
        served, schema = call.served, call.served.any_schema
        rules = kinds.for_kind(served.store)
        shaped = new = self._shape(call, new)
        faults = schema.validate(new, old) if schema else []
        if any(fault.reason == TYPE for fault in faults):  # nothing after this need expect a list where text belongs
            self._refuse(call, new, [*self._check_meta(call, new, old), *faults], "")
        if rules.complete and not call.subresource:
            new = rules.complete(new, self._lookup)
        ranges = self._ranges(call)
        if ranges and old is None:
            new = limits.with_defaults(served.store, new, ranges)
        plugins = self._plugins.get((served.resource.group, served.resource.plural), ())
        new = self._mutate(call, operation, new, old)
        if self._webhooks:
            new = await self._webhooks.mutate(
                call, operation, new, old, lambda doc: self._settle(call, operation, doc, old)
            ) or new  # fmt: skip
        request = _request(call, operation, new, old) if plugins else None
        if schema and new is not shaped:
            faults = schema.validate(new, old)
        causes = [*self._check_meta(call, new, old), *faults]
        if rules.check and not call.subresource:
            causes += [cause for cause in rules.check(new, old) if cause not in causes]
        denied = "; ".join(limits.check(served.store, new, ranges)) if call.subresource != "status" else ""
        for plugin in plugins if request else ():
            verdict = await plugin.validate(request)  # type: ignore[arg-type]
            causes += [cause for cause in verdict.causes if cause not in causes]
            call.warnings += [w for w in verdict.warnings if w not in call.warnings]
            denied = denied or verdict.denied
        self._refuse(call, new, causes, denied)
        if self._policies:
            self._policies.validate(call, operation, new, old)
        if self._webhooks:
            await self._webhooks.validate(call, operation, new, old)
        return new

    def _mutate(self, call: Call, operation: Operation, new: Document, old: Document | None) -> Document:
        """What the plug-ins make of it."""
        schema = call.served.any_schema
        for plugin in self._plugins.get((call.served.resource.group, call.served.resource.plural), ()):
            changed = plugin.mutate(_request(call, operation, new, old))
            if changed is not None:
                new = {**(schema.default(changed) if schema else changed)}
                new["metadata"] = {**changed["metadata"]}
                if old is not None:
                    objectmeta.count_generation(call.served, new, old, subresource=call.subresource)
        return new

    def _settle(self, call: Call, operation: Operation, new: Document, old: Document | None) -> Document:
        """What webhooks left, as an object that the rest may expect: only what this write may change, with defaults."""
        schema = call.served.any_schema
        if old is not None:
            new = objectmeta.carry(call.served, new, old, subresource=call.subresource)
        if schema:
            pruned, _ = schema.prune(new)
            new = {**schema.default(pruned)}
            new["metadata"] = {**new["metadata"]}
            faults = schema.validate(new, old)
            if any(fault.reason == TYPE for fault in faults):
                self._refuse(call, new, faults, "")
        return self._mutate(call, operation, new, old)

    async def admit_delete(self, call: Call, old: Document) -> None:
        plugins = self._plugins.get((call.served.resource.group, call.served.resource.plural), ())
        for plugin in plugins:
            verdict = await plugin.validate(_request(call, "DELETE", None, old))
            call.warnings += verdict.warnings
            self._refuse(call, old, list(verdict.causes), verdict.denied)
        if self._webhooks:
            await self._webhooks.mutate(call, "DELETE", None, old, lambda doc: doc)
        if self._policies:
            self._policies.validate(call, "DELETE", None, old)
        if self._webhooks:
            await self._webhooks.validate(call, "DELETE", None, old)

    async def admit_connect(self, call: Call, options: Document) -> None:
        """Of a stream into an object: `options` say what is asked for (PodExecOptions and its like)."""
        if self._webhooks:
            await self._webhooks.mutate(call, "CONNECT", options, None, lambda doc: doc)
        if self._policies:
            self._policies.validate(call, "CONNECT", options, None)
        if self._webhooks:
            await self._webhooks.validate(call, "CONNECT", options, None)

    async def admit_eviction(self, call: Call, eviction: Document, pod: Document) -> None:
        """Raises TooManyRequests when a plug-in says that the pod has to stay for now."""
        for plugin in self._plugins.get((call.served.resource.group, call.served.resource.plural), ()):
            request = structs.replace(_request(call, "CREATE", pod, pod), obj=eviction)
            verdict = await plugin.validate(request)
            call.warnings += verdict.warnings
            self._refuse(call, pod, list(verdict.causes), verdict.denied)
            if verdict.busy:
                raise TooManyRequests(verdict.busy, **call.about(request.name))

    def _shape(self, call: Call, new: Document) -> Document:
        """Prunes and defaults, and says or refuses what nobody knows."""
        unknown: tuple[str, ...] = ()
        schema = call.served.any_schema
        if schema:
            pruned, unknown = schema.prune(new)
            new = {**schema.default(pruned)}
            new["metadata"] = {**new["metadata"]}
        if unknown or call.duplicate_fields:
            if call.field_validation == "Strict" and (why := strict_error(unknown, call.duplicate_fields)):
                raise BadRequest(f"{_title(call)}: {why}", **call.about(new["metadata"].get("name") or ""))
            if call.field_validation == "Warn":
                call.warnings += field_warnings(unknown, call.duplicate_fields)
        return new

    def _ranges(self, call: Call) -> list[Document]:
        """The LimitRanges that bound the object, for the kinds that they are about."""
        if call.served.store not in limits.STORES:
            return []
        return [found for found in self._lookup("/limitranges") if found["metadata"]["namespace"] == call.namespace]

    def _check_meta(self, call: Call, new: Document, old: Document | None) -> list[Cause]:
        return objectmeta.check_create(call.served, new) if old is None else objectmeta.check_update(new, old)

    def _refuse(self, call: Call, doc: Document, causes: list[Cause], denied: str) -> None:
        name = str(doc["metadata"].get("name") or doc["metadata"].get("generateName") or "")
        if denied:
            raise Forbidden(f'{call.served.qualified} "{name}" is forbidden: {denied}', **call.about(name))
        if causes:
            raise invalid(causes, kind=call.served.resource.kind, name=name, group=call.served.resource.group)


def _title(call: Call) -> str:
    resource = call.served.resource
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'


def _request(call: Call, operation: Operation, new: Document | None, old: Document | None) -> AdmissionRequest:
    meta = (new or old or {})["metadata"]
    return AdmissionRequest(
        operation=operation,
        resource=call.served.resource,
        subresource=call.subresource,
        namespace=call.namespace,
        name=str(meta.get("name") or ""),
        user=call.user,
        obj=new,
        old=old,
        dry_run=call.dry_run,
    )
