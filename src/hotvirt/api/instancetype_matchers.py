"""`spec.instancetype` and `spec.preference` of a VM: what they name, or which volume's labels name it for them. Pure.

Whoever infers hands in a `Lookup`, since the labels are on claims, data volumes and data sources.
"""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from hotvirt.api.faults import Fault, invalid, not_supported, required

Document = dict[str, Any]
Lookup = Callable[[str, str, str], Document | None]
"""(kind, name, namespace) -> the object: PersistentVolumeClaim, DataVolume, DataSource or VolumeSnapshot."""

INSTANCETYPE, PREFERENCE = "instancetype", "preference"
BOTH = (INSTANCETYPE, PREFERENCE)
_KINDS = {
    INSTANCETYPE: ("VirtualMachineClusterInstancetype", "VirtualMachineInstancetype"),
    PREFERENCE: ("VirtualMachineClusterPreference", "VirtualMachinePreference"),
}
"""The default first."""
_GROUP = "instancetype.kubevirt.io"
_POLICIES = ("Reject", "Ignore")


class Matcher(Struct, frozen=True):
    """`kind` is one of the four kinds, or "" when the one that was written is none of them."""

    what: str
    kind: str
    name: str
    revision: str = ""

    @property
    def field(self) -> str:
        return f"spec.{self.what}.name"

    @property
    def is_cluster(self) -> bool:
        return "Cluster" in self.kind

    def annotation(self) -> tuple[str, str]:
        """What an instance made with it carries."""
        return f"kubevirt.io/{'cluster-' if self.is_cluster else ''}{self.what}-name", self.name


def matcher(vm: Document, what: str) -> Matcher | None:
    """None when the VM names none."""
    said = (vm.get("spec") or {}).get(what)
    if not said:
        return None
    return Matcher(what, kind_of(what, said.get("kind")), said.get("name") or "", said.get("revisionName") or "")


def kind_of(what: str, said: str | None) -> str:
    """The kind as people write it, which may be a resource's name, singular or plural, in any case."""
    if not said:
        return _KINDS[what][0]
    return next((kind for kind in _KINDS[what] if said.lower() in (kind.lower(), f"{kind.lower()}s")), "")


def revision_of(vm: Document, found: Matcher) -> str:
    """The ControllerRevision that keeps what the matcher stands for; "" while there is none."""
    if found.revision:
        return found.revision
    reference = (vm.get("status") or {}).get(f"{found.what}Ref") or {}
    same = reference.get("name") == found.name and kind_of(found.what, reference.get("kind")) == found.kind
    return str((reference.get("controllerRevisionRef") or {}).get("name") or "") if same else ""


def answered(vm: Document, old: Document | None) -> Document:
    """The VM without questions that were answered before: whoever applies a manifest with inferFromVolume again finds
    the name in the VM already. The same object when there are none."""
    for what in BOTH:
        said, before = (((each or {}).get("spec") or {}).get(what) or {} for each in (vm, old))
        known = (before.get("name"), before.get("kind")) if before.get("name") else None
        if said.get("inferFromVolume") and known == (said.get("name"), said.get("kind")):
            kept = {key: value for key, value in said.items() if not key.startswith("inferFromVolume")}
            vm = {**vm, "spec": {**vm["spec"], what: kept}}
    return vm


def completed(vm: Document) -> Document:
    """The VM with the kinds of what it names, where it left them out. The same object when nothing is missing."""
    for what in BOTH:
        said = vm["spec"].get(what)
        if said and said.get("name") and not said.get("kind"):
            vm = {**vm, "spec": {**vm["spec"], what: {**said, "kind": _KINDS[what][0].lower()}}}
    return vm


def check(vm: Document, old: Document | None) -> Iterator[Fault]:
    """What is wrong with the matchers themselves. `old` is the VM before an edit."""
    for what in BOTH:
        said = (vm.get("spec") or {}).get(what)
        if said is None:
            continue
        yield from _check(what, said)
        before = ((old or {}).get("spec") or {}).get(what) or {}
        revision = said.get("revisionName")
        if revision and revision == before.get("revisionName") and said.get("name") != before.get("name"):
            message = f"is the revision of {before.get('name')}: remove it when you change the name"
            yield invalid(f"spec.{what}.revisionName", message)


def _check(what: str, said: Document) -> Iterator[Fault]:
    name, volume, kind, policy = (
        said.get(field) for field in ("name", "inferFromVolume", "kind", "inferFromVolumeFailurePolicy")
    )
    if not name and not volume:
        yield required(f"spec.{what}.name", f"say which {what}: its name, or inferFromVolume")
    if name and volume:
        yield not_supported(f"spec.{what}.name", "is to be inferred from a volume: remove name, or inferFromVolume")
    if kind and volume:
        yield not_supported(f"spec.{what}.kind", "is to be inferred from a volume: remove kind, or inferFromVolume")
    elif kind and not kind_of(what, kind):
        yield not_supported(f"spec.{what}.kind", f"{kind[:80]!r} is none: use {' or '.join(_KINDS[what])}")
    if policy not in (None, "", *_POLICIES):
        message = f"{policy[:80]!r} is unknown: use {' or '.join(_POLICIES)}"
        yield invalid(f"spec.{what}.inferFromVolumeFailurePolicy", message)


# Inference


class _NothingFound(Exception):
    """`ignorable`: inferFromVolumeFailurePolicy Ignore goes on without; not so for a name that leads nowhere."""

    def __init__(self, message: str, *, ignorable: bool = True) -> None:
        super().__init__(message)
        self.ignorable = ignorable


def inferred(vm: Document, lookup: Lookup) -> tuple[Document, list[Fault]]:
    """The VM with the names that its volumes tell, and what could not be told. The same object when nothing is asked
    for."""
    faults: list[Fault] = []
    for what in BOTH:
        said = (vm.get("spec") or {}).get(what) or {}
        if not said.get("inferFromVolume") or said.get("name"):
            continue
        lenient = said.get("inferFromVolumeFailurePolicy") == "Ignore"
        try:
            name, kind = _from_volume(vm, what, str(said["inferFromVolume"]), lookup)
        except _NothingFound as nothing:
            if lenient and nothing.ignorable:
                vm = {**vm, "spec": {key: value for key, value in vm["spec"].items() if key != what}}
            else:
                faults.append(invalid(f"spec.{what}.inferFromVolume", str(nothing)))
            continue
        vm = {**vm, "spec": {**vm["spec"], what: {"name": name, **({"kind": kind} if kind else {})}}}
        if lenient and what == INSTANCETYPE:
            vm = _without_fallback(vm)
    return vm, faults


def _without_fallback(vm: Document) -> Document:
    """Whoever ignores failures may write the memory for that case, which is not a conflict in the other."""
    template = (vm["spec"].get("template") or {}).get("spec") or {}
    domain = {key: value for key, value in (template.get("domain") or {}).items() if key != "memory"}
    template = {**vm["spec"]["template"], "spec": {**template, "domain": domain}}
    return {**vm, "spec": {**vm["spec"], "template": template}}


def _from_volume(vm: Document, what: str, volume: str, lookup: Lookup) -> tuple[str, str]:
    namespace = str(vm["metadata"].get("namespace") or "default")
    volumes = (((vm["spec"].get("template") or {}).get("spec") or {}).get("volumes")) or ()
    found = next((each for each in volumes if each.get("name") == volume), None)
    if found is None:
        raise _NothingFound(f"no volume is named {volume[:80]}", ignorable=False)
    search = _Search(what, lookup)
    if claim := (found.get("persistentVolumeClaim") or {}).get("claimName"):
        return search.of("PersistentVolumeClaim", claim, namespace)
    if name := (found.get("dataVolume") or {}).get("name"):
        templates = vm["spec"].get("dataVolumeTemplates") or ()
        template = next((each for each in templates if (each.get("metadata") or {}).get("name") == name), None)
        if template is not None:
            return search.of_source(template.get("spec") or {}, namespace)
        return search.of_data_volume(name, namespace)
    raise _NothingFound(f"volume {volume[:80]} is of a type that tells nothing: use a claim or a data volume")


class _Search(Struct, frozen=True):
    """Follows a volume to the labels that name a default."""

    what: str
    lookup: Lookup

    def of(self, kind: str, name: str, namespace: str) -> tuple[str, str]:
        obj = self.lookup(kind, name, namespace)
        if obj is None:
            raise _NothingFound(f"there is no {kind} {namespace}/{name}", ignorable=False)
        if told := self._labels(obj):
            return told
        label = f"{_GROUP}/default-{self.what}"
        raise _NothingFound(f"{kind} {namespace}/{name} has no label {label}: set it, or name the {self.what}")

    def of_data_volume(self, name: str, namespace: str) -> tuple[str, str]:
        obj = self.lookup("DataVolume", name, namespace)
        if obj is None:
            return self.of("PersistentVolumeClaim", name, namespace)
        return self._labels(obj) or self.of_source(obj.get("spec") or {}, namespace)

    def of_source(self, spec: Document, namespace: str) -> tuple[str, str]:
        """By where a data volume's content comes from."""
        if told := self._copied(spec.get("source") or {}, namespace):
            return told
        reference = spec.get("sourceRef") or {}
        if reference.get("kind") != "DataSource":
            raise _NothingFound("the data volume's source tells nothing: use a claim, a snapshot or a DataSource")
        name, namespace = str(reference.get("name")), str(reference.get("namespace") or namespace)
        obj = self.lookup("DataSource", name, namespace)
        if obj is None:
            raise _NothingFound(f"there is no DataSource {namespace}/{name}", ignorable=False)
        told = self._labels(obj) or self._copied((obj.get("spec") or {}).get("source") or {}, namespace)
        if not told:
            raise _NothingFound(f"DataSource {namespace}/{name} has no label and no source that could have one")
        return told

    def _copied(self, source: Document, namespace: str) -> tuple[str, str] | None:
        for field, kind in (("pvc", "PersistentVolumeClaim"), ("snapshot", "VolumeSnapshot")):
            if from_ := source.get(field):
                return self.of(kind, str(from_.get("name")), str(from_.get("namespace") or namespace))
        return None

    def _labels(self, obj: Document) -> tuple[str, str] | None:
        labels = (obj.get("metadata") or {}).get("labels") or {}
        name = labels.get(f"{_GROUP}/default-{self.what}")
        return (str(name), str(labels.get(f"{_GROUP}/default-{self.what}-kind") or "")) if name else None
