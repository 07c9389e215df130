"""What replica sets and pools may say. Every fault at once, with its field. Pure; types are the schema's to check."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from hotvirt.api import labelselectors, schemas, validation
from hotvirt.api.faults import Fault, invalid, required
from hotvirt.api.validation import Checked

Document = dict[str, Any]
Judge = Callable[[Document], Checked]
"""What is wrong with a VM, given one that the pool would make."""

SORT_POLICIES = ("AscendingOrder", "DescendingOrder", "Newest", "Oldest", "Random")
PRESERVATIONS = ("Disabled", "Offline", "Online")
STRATEGIES = ("unmanaged", "opportunistic", "proactive")
LONGEST_NAME = 63 - len("-9999")
_PERCENT = re.compile(r"([0-9]{1,3})%")
_DURATION = re.compile(r"([0-9]+(\.[0-9]*)?(ns|us|ms|s|m|h))+")


def replica_set(obj: Document) -> Checked:
    spec = obj.get("spec") or {}
    if not schemas.fits(spec, "VirtualMachineInstanceReplicaSetSpec"):
        return Checked()
    template = spec.get("template") or {}
    faults = [*_name(obj), *_replicas(spec)]
    if not template.get("spec"):
        faults.append(required("spec.template.spec", "say what each guest is: its domain, volumes and networks"))
    else:
        faults += validation.instance_spec(template["spec"], "spec.template.spec")
    faults += template_metadata(template, "spec.template")
    return Checked((*faults, *_selector(spec, template, "spec.template")))


def pool(obj: Document, old: Document | None, judge: Judge = validation.virtual_machine) -> Checked:
    spec = obj.get("spec") or {}
    if not schemas.fits(spec, "VirtualMachinePoolSpec"):
        return Checked()
    template = spec.get("virtualMachineTemplate") or {}
    inner = judge({"metadata": _like(obj), "spec": template.get("spec") or {}})
    here = "spec.virtualMachineTemplate"
    faults = [*_name(obj), *_replicas(spec)]
    faults += (Fault(f.reason, f"{here}.{f.field}", f.message) for f in inner.faults)
    faults += [*template_metadata(template, here), *_selector(spec, template, here)]
    if old is not None and (old.get("spec") or {}).get("selector") != spec.get("selector"):
        faults.append(invalid("spec.selector", "cannot be changed: make another pool"))
    faults += _max_unavailable(spec.get("maxUnavailable"))
    update, scale_in = spec.get("updateStrategy") or {}, spec.get("scaleInStrategy") or {}
    for strategy, path in ((update, "spec.updateStrategy"), (scale_in, "spec.scaleInStrategy")):
        faults += _one_of(strategy, path)
        faults += _selection(strategy.get("proactive") or {}, f"{path}.proactive")
    warnings = list(inner.warnings)
    for name in ("opportunistic", "proactive"):
        kept = (scale_in.get(name) or {}).get("statePreservation")
        field = f"spec.scaleInStrategy.{name}.statePreservation"
        if kept not in (None, "", *PRESERVATIONS):
            faults.append(invalid(field, f"{kept[:80]!r} is unknown: use {', '.join(PRESERVATIONS)}"))
        elif kept == "Online":
            warnings.append(f"{field}: Online keeps disks as Offline does; a guest's memory is not kept")
    return Checked((*faults, *_autohealing(spec.get("autohealing") or {})), tuple(warnings))


def _like(obj: Document) -> Document:
    """Metadata of the first machine that the pool would make."""
    metadata = obj.get("metadata") or {}
    return {"name": f"{metadata.get('name', '')}-0"[:63], "namespace": metadata.get("namespace")}


def _name(obj: Document) -> Iterator[Fault]:
    """Names of what is made of it become values of labels."""
    name = (obj.get("metadata") or {}).get("name") or ""
    if len(name) > LONGEST_NAME:
        yield invalid("metadata.name", f"has {len(name)} characters: use at most {LONGEST_NAME}, as a number follows")


def _replicas(spec: Document) -> Iterator[Fault]:
    if (count := spec.get("replicas")) is not None and count < 0:
        yield invalid("spec.replicas", f"must not be negative: {count}")


def template_metadata(template: Document, path: str) -> Iterator[Fault]:
    """The schema lets a template's metadata hold anything."""
    for field in ("labels", "annotations"):
        found = (template.get("metadata") or {}).get(field) or {}
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            yield invalid(
                f"{path}.metadata.{field}", "must be a map of text to text: put numbers and yes or no in quotes"
            )


def _selector(spec: Document, template: Document, path: str) -> Iterator[Fault]:
    selector = spec.get("selector")
    found = list(labelselectors.faults(selector, "spec.selector"))
    labels = (template.get("metadata") or {}).get("labels")
    if found:
        yield from found
    elif not labelselectors.matches(selector, labels if isinstance(labels, dict) else {}):
        wanted = labelselectors.text(selector)
        yield invalid("spec.selector", f"does not match the template's labels: set {wanted} in {path}.metadata.labels")


def _max_unavailable(value: Any) -> Iterator[Fault]:
    if value is None:
        return
    if isinstance(value, str):
        percent = _PERCENT.fullmatch(value)
        fine = percent is not None and 1 <= int(percent[1]) <= 100
    else:
        fine = value > 0
    if not fine:
        yield invalid("spec.maxUnavailable", f"{str(value)[:40]!r} is neither a number above 0 nor 1% to 100%")


def _one_of(strategy: Document, path: str) -> Iterator[Fault]:
    chosen = [name for name in STRATEGIES if strategy.get(name) is not None]
    if len(chosen) > 1:
        yield invalid(path, f"{' and '.join(chosen)} exclude each other: keep one")


def _selection(proactive: Document, path: str) -> Iterator[Fault]:
    policy = proactive.get("selectionPolicy") or {}
    if (sort := policy.get("sortPolicy")) not in (None, "", *SORT_POLICIES):
        yield invalid(f"{path}.selectionPolicy.sortPolicy", f"{sort[:80]!r} is unknown: use {', '.join(SORT_POLICIES)}")
    selectors = policy.get("selectors") or {}
    here = f"{path}.selectionPolicy.selectors"
    if selectors.get("labelSelector") is not None:
        yield from labelselectors.faults(selectors["labelSelector"], f"{here}.labelSelector")
    nodes = selectors.get("nodeSelectorRequirementMatcher")
    yield from labelselectors.expression_faults(
        nodes, f"{here}.nodeSelectorRequirementMatcher", operators=labelselectors.NODE_OPERATORS
    )


def _autohealing(healing: Document) -> Iterator[Fault]:
    if (threshold := healing.get("startUpFailureThreshold")) is not None and threshold < 1:
        yield invalid("spec.autohealing.startUpFailureThreshold", "must be at least 1")
    duration = healing.get("minFailingToStartDuration")
    if duration is not None and not _DURATION.fullmatch(duration):
        yield invalid("spec.autohealing.minFailingToStartDuration", f"{duration[:40]!r} is not a duration such as 5m")


def seconds(duration: str) -> float:
    """Of a duration that was found to be one: `1h2m3.5s`."""
    units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"([0-9]+(?:\.[0-9]*)?)(ns|us|ms|s|m|h)", duration)
    return sum(float(number) * units[unit] for number, unit in parts)
