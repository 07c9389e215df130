"""What may be said in the kinds that clients and controllers keep their books in: events, leases, revisions,
priorities, endpoints. Every fault is found. Pure.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from hotvirt.kube.errors import Cause, Forbidden
from hotvirt.server.kind_checks import unsupported
from hotvirt.server.objectmeta import FORBIDDEN, INVALID, REQUIRED, TOO_LONG

Document = dict[str, Any]
NEW_EVENTS = "events.k8s.io/v1"
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
HIGHEST_PRIORITY = 1_000_000_000
PREEMPTION = ("Never", "PreemptLowerPriority")
_EVENT_TYPES = ("Normal", "Warning")
_LONGEST = {"note": 1024, "reportingInstance": 128, "action": 128, "reason": 128}
_OLD_FIELDS = ("deprecatedSource", "deprecatedFirstTimestamp", "deprecatedLastTimestamp", "deprecatedCount")
_REPORTER = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_FAMILIES = {"IPv4": IPv4Address, "IPv6": IPv6Address}
ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")


def priority_classes() -> list[Document]:
    """Those that are there from the start."""
    why = {"system-cluster-critical": "the cluster needs, on whichever node",
           "system-node-critical": "their node needs, and no other can run"}  # fmt: skip
    return [
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
         "description": f"For system pods that {why[name]}."}
        for name, value in SYSTEM_PRIORITIES.items()
    ]  # fmt: skip


def event(new: Document, old: Document | None) -> list[Cause]:
    if new.get("apiVersion") == NEW_EVENTS:
        return [*_about(new, "regarding"), *(_new_event(new) if old is None else _same_event(new, old))]
    return _about(new, "involvedObject") if old is None else []


def _about(new: Document, key: str) -> list[Cause]:
    """An event is where its object is; of one that is in no namespace it is in `default`."""
    about, where = (new.get(key) or {}).get("namespace") or "", new["metadata"].get("namespace")
    if about == where or (not about and where in (None, "default")):
        return []
    return [Cause(INVALID, f'Invalid value: "{about}": does not match event.namespace', f"{key}.namespace")]


def _new_event(new: Document) -> Iterator[Cause]:
    if not new.get("eventTime"):
        yield Cause(REQUIRED, "Required value", "eventTime")
    reporter = new.get("reportingController") or ""
    if not reporter:
        yield Cause(REQUIRED, "Required value", "reportingController")
    elif not _REPORTER.match(reporter):
        yield Cause(INVALID, f'Invalid value: "{reporter}": must be a qualified name', "reportingController")
    for key, longest in _LONGEST.items():
        text = new.get(key) or ""
        if not text and key != "note":
            yield Cause(REQUIRED, "Required value", key)
        elif len(text.encode()) > longest:
            yield Cause(TOO_LONG, f"Too long: may not be more than {longest} bytes", key)
    if new.get("type") not in _EVENT_TYPES:
        yield unsupported(new.get("type") or "", _EVENT_TYPES, "type")
    for key in _OLD_FIELDS:
        if new.get(key):
            yield Cause(INVALID, f"Invalid value: {new[key]!r}: needs to be unset", key)


def _same_event(new: Document, old: Document) -> Iterator[Cause]:
    """Only its series goes on."""
    for key in sorted((new.keys() | old.keys()) - {"series", "metadata", "apiVersion", "kind"}):
        if (new.get(key) or None) != (old.get(key) or None):
            yield Cause(INVALID, f"Invalid value: {str(new.get(key))[:80]!r}: field is immutable", key)


def lease(new: Document, _: Document | None) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = []
    seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if seconds is not None and seconds <= 0:
        message = f"Invalid value: {seconds}: must be greater than 0"
        causes.append(Cause(INVALID, message, "spec.leaseDurationSeconds"))
    if transitions is not None and transitions < 0:
        message = f"Invalid value: {transitions}: must be greater than or equal to 0"
        causes.append(Cause(INVALID, message, "spec.leaseTransitions"))
    return causes


def revision(new: Document, old: Document | None) -> list[Cause]:
    causes = []
    if new.get("data") is None:
        causes.append(Cause(REQUIRED, "Required value: data is mandatory", "data"))
    elif old is not None and new["data"] != old.get("data"):
        causes.append(Cause(INVALID, "Invalid value: field is immutable", "data"))
    if isinstance(new.get("revision"), int) and new["revision"] < 0:
        message = f"Invalid value: {new['revision']}: must be greater than or equal to 0"
        causes.append(Cause(INVALID, message, "revision"))
    return causes


def complete_priority_class(doc: Document, lookup: Callable[[str], Iterable[Document]]) -> Document:
    """Forbidden for a second class that would be the one of all pods that name none."""
    name = doc["metadata"].get("name")
    for other in lookup("scheduling.k8s.io/priorityclasses") if doc.get("globalDefault") else ():
        taken = other["metadata"]["name"]
        if other.get("globalDefault") and taken != name:
            raise Forbidden(
                f'priorityclasses.scheduling.k8s.io "{name}" is forbidden: PriorityClass {taken} is already marked as '
                "default. Only one default can exist",
                group="scheduling.k8s.io", kind="priorityclasses", name=str(name),
            )  # fmt: skip
    return doc if "preemptionPolicy" in doc else {**doc, "preemptionPolicy": "PreemptLowerPriority"}


def priority_class(new: Document, old: Document | None) -> list[Cause]:
    name, value, policy = new["metadata"].get("name") or "", new.get("value"), new.get("preemptionPolicy")
    causes = []
    if name.startswith("system-"):
        if SYSTEM_PRIORITIES.get(name) != value or new.get("globalDefault"):
            message = "Forbidden: priority class names with 'system-' prefix are reserved for system use only"
            causes.append(Cause(FORBIDDEN, message, "metadata.name"))
    elif isinstance(value, int) and value > HIGHEST_PRIORITY:
        message = f"Forbidden: maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}"
        causes.append(Cause(FORBIDDEN, message, "value"))
    if policy is not None and policy not in PREEMPTION:
        causes.append(unsupported(policy, PREEMPTION, "preemptionPolicy"))
    if old is not None:
        causes += [
            Cause(FORBIDDEN, "Forbidden: may not be changed in an update.", key)
            for key in ("value", "preemptionPolicy")
            if new.get(key) != old.get(key)
        ]
    return causes


def endpoints(new: Document, _: Document | None) -> list[Cause]:
    causes: list[Cause] = []
    for index, subset in enumerate(new.get("subsets") or ()):
        at = f"subsets[{index}]"
        if not isinstance(subset, dict) or not (subset.get("addresses") or subset.get("notReadyAddresses")):
            causes.append(Cause(REQUIRED, "Required value: must specify `addresses` or `notReadyAddresses`", at))
            continue
        for key in ("addresses", "notReadyAddresses"):
            for number, address in enumerate(_objects(subset.get(key))):
                causes += _address(address.get("ip"), f"{at}.{key}[{number}].ip")
        ports = _objects(subset.get("ports"))
        for number, port in enumerate(ports):
            causes += _port(port, f"{at}.ports[{number}]")
            if len(ports) > 1 and not port.get("name"):
                causes.append(Cause(REQUIRED, "Required value", f"{at}.ports[{number}].name"))
    return causes


def endpoint_slice(new: Document, old: Document | None) -> list[Cause]:
    kind = new.get("addressType")
    causes = [] if kind in ADDRESS_TYPES else [unsupported(kind, ADDRESS_TYPES, "addressType")]
    if old is not None and kind != old.get("addressType"):
        causes.append(Cause(INVALID, f'Invalid value: "{kind}": field is immutable', "addressType"))
    found = _objects(new.get("endpoints"))
    if len(found) > 1000:
        causes.append(Cause("FieldValueTooMany", f"Too many: {len(found)}: must have at most 1000 items", "endpoints"))
    for index, endpoint in enumerate(found[:1000]):
        at = f"endpoints[{index}].addresses"
        addresses = endpoint.get("addresses") or []
        if not addresses:
            causes.append(Cause(REQUIRED, "Required value: must contain at least 1 address", at))
        for number, address in enumerate(addresses if kind in _FAMILIES else ()):
            causes += _address(address, f"{at}[{number}]", family=str(kind))
    names: set[str] = set()
    for index, port in enumerate(_objects(new.get("ports"))):
        at, name = f"ports[{index}]", port.get("name") or ""
        if name in names:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{at}.name"))
        names.add(name)
        if port.get("port") is not None:
            causes += _port(port, at)
    return causes


def _objects(value: Any) -> list[Document]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _address(text: Any, at: str, *, family: str = "") -> Iterator[Cause]:
    """Loopback addresses are good here, other than in a cluster: guests of an ordinary user have such."""
    try:
        parsed = ip_address(str(text))
    except ValueError:
        yield Cause(INVALID, f'Invalid value: "{text}": must be a valid IP address', at)
        return
    if family and not isinstance(parsed, _FAMILIES[family]):
        yield Cause(INVALID, f'Invalid value: "{text}": must be a valid {family} address', at)


def _port(port: Document, at: str) -> Iterator[Cause]:
    number, protocol = port.get("port"), port.get("protocol") or "TCP"
    if not isinstance(number, int) or not 1 <= number <= 65535:
        yield Cause(INVALID, f"Invalid value: {number or 0}: must be between 1 and 65535, inclusive", f"{at}.port")
    if protocol not in ("SCTP", "TCP", "UDP"):
        yield unsupported(protocol, ("SCTP", "TCP", "UDP"), f"{at}.protocol")
