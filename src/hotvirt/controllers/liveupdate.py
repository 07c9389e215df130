"""An edited VM against its running instance: what goes through while it runs, and what has to wait for a restart. Pure.

Live are memory, sockets, what is declared as the most of them (as far as QEMU has room), the requests and limits that
follow them, volumes with their disks (`livevolumes`), cards (`livecards`), and where a machine may run. Each is asked
of `preconditions`; one that may not be made, and every other field that differs from what the machine was started with,
becomes a `Refusal`. Refusals never hold back what is live: both come from the same edit. What its node or a
quota has no room for waits, and is said to (`Update.held`).
"""

from collections.abc import Container, Mapping
from typing import Any

from msgspec import Struct

from hotvirt.api import defaults
from hotvirt.api.quantity import format_bytes, format_cpu, parse_bytes, parse_cpu
from hotvirt.controllers import launcherpod, livecards, livevolumes
from hotvirt.controllers import spec as specs
from hotvirt.controllers.launcherpod import Settings
from hotvirt.controllers.placement import Demand, demand, requested, shortage
from hotvirt.controllers.templatediff import SECRET, Difference, diff, merge_patch, merged, shown
from hotvirt.kube.client import Document
from hotvirt.preconditions import (
    Change,
    CpuChange,
    CpuLimit,
    Facts,
    MemoryChange,
    MemoryLimit,
    blockers,
    check,
    space,
)
from hotvirt.preconditions import sentence as sentence_of
from hotvirt.preconditions.facts import Quota

TEMPLATE = "spec.template.spec"
MOST_REASONS = 10
PLACEMENT = ("nodeSelector", "affinity", "tolerations")
AT_START_ONLY = ("startStrategy",)
HINTS = (
    ("domain.cpu.cores", "only sockets change while it runs"),
    ("domain.cpu.threads", "only sockets change while it runs"),
    ("domain.cpu.maxSockets", "who has no maximum of its own gets the cluster's when it starts"),
    ("domain.memory.maxGuest", "who has no maximum of its own gets the cluster's when it starts"),
    ("volumes[", "only volumes marked hotpluggable: true come and go while it runs"),
    ("domain.devices.disks[", "only disks of volumes marked hotpluggable: true come and go while it runs"),
)
REATTACH, READD = "detach and attach it again, or restart", "take it out and add it again, or restart"


class Refusal(Struct, frozen=True):
    """`field` in the VM; `id` is the precondition's, or `template` for a field that is never live."""

    field: str
    old: str
    new: str
    why: str
    id: str = "template"

    def __str__(self) -> str:
        change = "changed" if any(word in self.field for word in SECRET) else f"{self.old} -> {self.new}"
        return f"{self.field}: {change}: {self.why}"


class Update(Struct, frozen=True):
    """`patch`: a merge patch of the instance's spec, {} for none. `waits`: a volume leaves before it comes anew.
    `held`: live, but the node has no room for it now."""

    patch: Document = {}
    refusals: tuple[Refusal, ...] = ()
    waits: bool = False
    held: tuple[Refusal, ...] = ()

    @property
    def settled(self) -> bool:
        """The instance has all that the VM says."""
        return not (self.patch or self.refusals or self.waits or self.held)


class Room(Struct, frozen=True):
    """What the instance's node has left beside all its pods, and the instance's own pod."""

    left: Demand
    pod: Document
    quotas: tuple[Quota, ...] = ()
    """Of the instance's namespace, with what was promised of them."""


def plan(
    vm: Document,
    vmi: Document,
    started: Document | None,
    *,
    facts: Facts,
    settings: Settings,
    room: Room | None = None,
) -> Update:
    """`started` is the template's spec at the machine's start, None if its revision is lost: then only live fields can
    be compared. Without `room` somebody else sees to it that the node has enough."""
    held: dict[str, Refusal] = {}
    while True:
        update = _plan(vm, vmi, started, facts=facts, settings=settings, held=held)
        short = _short(vmi, update, settings, room)
        if short is None or short[0] in held:
            return update
        resource, why = short
        held[resource] = _waiting(resource, vm, vmi, why)


def _plan(
    vm: Document,
    vmi: Document,
    started: Document | None,
    *,
    facts: Facts,
    settings: Settings,
    held: Mapping[str, Refusal],
) -> Update:
    wanted, has = specs.template_spec(vm), vmi["spec"]
    live = facts.rollout_strategy == "LiveUpdate"
    refusals = [] if started is None else [_never_live(d) for d in _other_differences(started, wanted, live=live)]
    new = dict(has)
    new["domain"] = dict(specs.domain(has))
    refusals += _limits(new, wanted, started, vmi, facts)
    vmi = {**vmi, "spec": {**has, "domain": dict(new["domain"])}}  # as the rest of the edit finds it
    untouched = set(held)
    if "memory" not in held:
        refused = _memory(new, wanted, vmi, facts)
        refusals += refused
        if refused and not _names_guest(wanted):
            untouched.add("memory")  # its requests would have sized the guest
    if "cpu" not in held:
        refusals += _sockets(new, wanted, vmi, facts)
    _keep_within(new, has)
    _resources(new, wanted, started or has, cpu_ratio=settings.cpu_allocation_ratio, untouched=untouched)

    def judge(change: Change, field: str, old: str, target: str) -> bool:
        refused = _judged(change, vmi, facts, field=field, old=old, new=target)
        refusals.extend(refused)
        return not refused

    waits = livevolumes.plan(new, wanted, vmi, judge)
    refusals += [_never_live(each, REATTACH) for each in livevolumes.unlike(wanted, has, new)]
    refusals += [_never_live(each, READD) for each in livecards.unlike(wanted, has, started)]
    livecards.plan(new, wanted, vmi, judge)
    if live:
        for field in PLACEMENT:
            _put(new, field, wanted.get(field))
    return Update(merge_patch(has, new), tuple(refusals), waits, tuple(held.values()))


def asked(vmi: Document, update: Update, settings: Settings) -> Demand:
    """What the instance's pod will ask for once it has followed the update."""
    return requested(launcherpod.resources(merged(vmi["spec"], update.patch), settings))


def _short(vmi: Document, update: Update, settings: Settings, room: Room | None) -> tuple[str, str] | None:
    """The resource that the node or a quota has too little of for the update, and the sentence for it. How much more is
    asked for is reckoned from the pod, which may have yet to follow the edit before."""
    if room is None or not update.patch.get("domain"):
        return None
    more = asked(vmi, update, settings) - demand(room.pod)
    spec = merged(vmi["spec"], update.patch)
    changes: tuple[tuple[str, Demand, MemoryChange | CpuChange], ...] = (
        ("memory", Demand(memory=more.memory), MemoryChange(specs.guest_memory(spec) or 0)),
        ("cpu", Demand(cpu=more.cpu), CpuChange(specs.sockets(spec))),
    )
    for resource, part, change in changes:
        why = shortage(part, room.left) or space.exceeded(part, room.quotas)
        if why:
            facts = Facts(
                room=room.left, quotas=room.quotas, cpu_ratio=settings.cpu_allocation_ratio,
                memory_overcommit=settings.memory_overcommit,
            )  # fmt: skip
            found = (space.node(change, vmi, facts), space.quota(change, vmi, facts))
            return resource, sentence_of(each for each in found if each is not None) or why
    return None


def _waiting(resource: str, vm: Document, vmi: Document, why: str) -> Refusal:
    wanted, has = specs.template_spec(vm), vmi["spec"]
    why = f"{why}; it waits until there is room, or take the edit back"
    if resource == "cpu":
        field, old, new = "domain.cpu.sockets", str(specs.sockets(has)), str(specs.sockets(wanted))
    else:
        field = "domain.memory.guest" if _names_guest(wanted) else "domain.resources.requests.memory"
        old, new = (format_bytes(specs.guest_memory(spec) or 0) for spec in (has, wanted))
    return Refusal(f"{TEMPLATE}.{field}", old, new, why, f"node.{resource}")


def is_edited(vm: Document, started: Document | None) -> bool:
    """Whether the template says anything else than at the machine's start."""
    return started is not None and next(diff(started, specs.template_spec(vm)), None) is not None


def message(update: Update, name: str) -> str:
    """For the condition RestartRequired: every reason, and what to do."""
    reasons = [str(refusal) for refusal in update.refusals[:MOST_REASONS]]
    if more := len(update.refusals) - len(reasons):
        reasons.append(f"and {more} more")
    return f"{'; '.join(reasons)}. To apply: hotvirt restart {name}; or take the edit back"


# One kind of change each. They fill in `new`, the instance's spec to be.


LIMITS = (("memory", "maxGuest"), ("cpu", "maxSockets"))


def _limits(new: Document, wanted: Document, started: Document | None, vmi: Document, facts: Facts) -> list[Refusal]:
    """A maximum that is not named any more stays until the next start, and is told of as such."""
    refusals: list[Refusal] = []
    for block, field in LIMITS:
        most, had = ((specs.domain(spec).get(block) or {}).get(field) for spec in (wanted, new))
        where = f"domain.{block}.{field}"
        if block == "memory" and most is None and had is not None and started is not None:
            most, where = _most_by_limit(wanted, started), "domain.resources.limits.memory"
        if most is None or _same_limit(block, most, had):
            continue
        change: Change = MemoryLimit(parse_bytes(most)) if block == "memory" else CpuLimit(int(most))
        after = {**vmi, "spec": {**vmi["spec"], "domain": _with_sizes(specs.domain(vmi["spec"]), wanted)}}
        refused = _judged(change, after, facts, field=where, old=shown(had), new=shown(most))
        refusals += refused
        if not refused:
            new["domain"][block] = {**(new["domain"].get(block) or {}), field: most}
    return refusals


def _most_by_limit(wanted: Document, started: Document) -> str | None:
    """The limit of memory, where that is the maximum as at a start: who had a maximum of his own takes his limit for it
    only once that is another."""
    limit, before = (specs.resources(spec, "limits").get("memory") for spec in (wanted, started))
    own = (specs.domain(started).get("memory") or {}).get("maxGuest") is not None
    if limit is None or (own and _same("memory", limit, before)):
        return None
    return format_bytes(defaults.whole_blocks(parse_bytes(limit)))


def _keep_within(new: Document, has: Document) -> None:
    """A lower maximum waits for the size that it covers."""
    memory, before = new["domain"].get("memory") or {}, specs.domain(has).get("memory") or {}
    if memory.get("maxGuest") is not None and parse_bytes(memory["maxGuest"]) < (specs.guest_memory(new) or 0):
        new["domain"]["memory"] = {**memory, "maxGuest": before.get("maxGuest") or memory["maxGuest"]}
    cpu, before = new["domain"].get("cpu") or {}, specs.domain(has).get("cpu") or {}
    if cpu.get("maxSockets") is not None and int(cpu["maxSockets"]) < specs.sockets(new):
        new["domain"]["cpu"] = {**cpu, "maxSockets": before.get("maxSockets") or cpu["maxSockets"]}


def _with_sizes(domain: Document, wanted: Document) -> Document:
    """The domain as large as it is to be: a maximum goes with the size of the same edit."""
    size = specs.guest_memory(wanted)
    memory = {**(domain.get("memory") or {}), **({"guest": format_bytes(size)} if size is not None else {})}
    return {**domain, "memory": memory, "cpu": {**(domain.get("cpu") or {}), "sockets": specs.sockets(wanted)}}


def _same_limit(block: str, one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return parse_bytes(one) == parse_bytes(other) if block == "memory" else int(one) == int(other)


def _memory(new: Document, wanted: Document, vmi: Document, facts: Facts) -> list[Refusal]:
    size, has = specs.guest_memory(wanted), specs.guest_memory(new)
    if size is None or has is None or size == has:
        return []
    field = "domain.memory.guest" if _names_guest(wanted) else "domain.resources.requests.memory"
    if refused := _judged(
        MemoryChange(guest=size), vmi, facts, field=field, old=format_bytes(has), new=format_bytes(size)
    ):
        return refused
    new["domain"]["memory"] = {**(new["domain"].get("memory") or {}), "guest": format_bytes(size)}
    return []


def _sockets(new: Document, wanted: Document, vmi: Document, facts: Facts) -> list[Refusal]:
    count, has = specs.sockets(wanted), specs.sockets(new)
    if count == has:
        return []
    if refused := _judged(
        CpuChange(sockets=count), vmi, facts, field="domain.cpu.sockets", old=str(has), new=str(count)
    ):
        return refused
    new["domain"]["cpu"] = {**(new["domain"].get("cpu") or {}), "sockets": count}
    return []


def _resources(
    new: Document, wanted: Document, started: Document, *, cpu_ratio: int, untouched: Container[str]
) -> None:
    """Requests and limits as edited; where they are not, they follow the guest's size from what they were at start."""
    sizes = {
        "memory": (specs.guest_memory(started) or 0, specs.guest_memory(new) or 0, 1),
        "cpu": (specs.vcpus(started), specs.vcpus(new), 1000 // cpu_ratio),
    }
    resources = dict(new["domain"].get("resources") or {})
    for kind in ("requests", "limits"):
        amounts = dict(resources.get(kind) or {})
        for resource, (before, after, each) in sizes.items():
            if resource in untouched:
                continue
            now, then = specs.resources(wanted, kind).get(resource), specs.resources(started, kind).get(resource)
            if now is not None and now == then:
                now = _followed(resource, now, before=before, after=after, each=each)
            if now != amounts.get(resource) and not _same(resource, now, amounts.get(resource)):
                _put(amounts, resource, now)
        if amounts or kind in resources:
            resources[kind] = amounts
    if resources:
        new["domain"]["resources"] = resources


# Why not


def _judged(change: Change, vmi: Document, facts: Facts, *, field: str, old: str, new: str) -> list[Refusal]:
    blocking = blockers(check(change, vmi, facts))
    if not blocking:
        return []
    return [Refusal(f"{TEMPLATE}.{field}", old, new, sentence_of(blocking), blocking[0].id)]


def _never_live(found: Difference, why: str = "") -> Refusal:
    why = why or next(
        (hint for prefix, hint in HINTS if found.path.startswith(prefix)), "it changes with a restart only"
    )
    return Refusal(f"{TEMPLATE}.{found.path}", shown(found.old), shown(found.new), why)


def _other_differences(started: Document, wanted: Document, *, live: bool) -> list[Difference]:
    both = livecards.second(started) & livecards.second(wanted)
    named = [
        (block, field) for block, field in LIMITS if (specs.domain(wanted).get(block) or {}).get(field) is not None
    ]
    before, after = (_without_live(spec, both, named, live=live) for spec in (started, wanted))
    return list(diff(before, after))


def _without_live(spec: Document, both: set[str], limits: list[tuple[str, str]], *, live: bool) -> Document:
    """The spec without what the functions above look after."""
    left = {key: value for key, value in spec.items() if key not in AT_START_ONLY and not (live and key in PLACEMENT)}
    left["volumes"], disks = livevolumes.without(spec)
    domain = dict(specs.domain(spec))
    _trim(domain, "memory", ("guest", *(field for block, field in limits if block == "memory")))
    _trim(domain, "cpu", ("sockets", *(field for block, field in limits if block == "cpu")))
    if domain.get("resources"):
        domain["resources"] = dict(domain["resources"])
        for kind in ("requests", "limits"):
            _trim(domain["resources"], kind, ("memory", "cpu"))
        _trim(domain, "resources", ())
    if (domain.get("devices") or {}).get("disks"):
        domain["devices"] = {**domain["devices"], "disks": disks}
        _trim(domain, "devices", () if disks else ("disks",))
    networks, cards = livecards.without(spec, both)
    if "networks" in left:
        left["networks"] = networks
    if (domain.get("devices") or {}).get("interfaces"):
        domain["devices"] = {**domain["devices"], "interfaces": cards}
    return {**left, "domain": domain}


def _trim(where: Document, block: str, fields: tuple[str, ...]) -> None:
    """Takes fields out of a block, and the block out when nothing is left: an empty one says no more than none."""
    left = {key: value for key, value in (where.get(block) or {}).items() if key not in fields}
    _put(where, block, left or None)


# Small readings


def _names_guest(spec: Document) -> bool:
    return (specs.domain(spec).get("memory") or {}).get("guest") is not None


def _followed(resource: str, amount: Any, *, before: int, after: int, each: int) -> Any:
    """The amount as the size it goes with changes: KubeVirt's sum up, in proportion down (the sum could reach zero)."""
    if before == after or not before:
        return amount
    parse, render = (parse_cpu, format_cpu) if resource == "cpu" else (parse_bytes, format_bytes)
    exact = parse(amount)
    return render(exact + (after - before) * each if after > before else max(1, exact * after // before))


def _same(resource: str, one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    parse = parse_cpu if resource == "cpu" else parse_bytes
    return parse(one) == parse(other)


def _put(where: Document, key: str, value: Any) -> None:
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value
