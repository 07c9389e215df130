"""Network cards of an edited VM against those of its running instance: what goes through while it runs. Pure.

Live are cards of networks beside the pod's (they come, and go when they are `absent` or taken out of the template) and
the cable of every card (`state` up or down). In the instance a card that goes stays as `absent`, so that every card
keeps its place in the list while the guest runs.
"""

from collections.abc import Callable, Iterator
from typing import Any

from hotvirt.api import attachments, defaults, disks
from hotvirt.controllers import spec as specs
from hotvirt.controllers.templatediff import Difference, diff
from hotvirt.preconditions import Change, NicAdd, NicLink, NicRemove

Document = dict[str, Any]
Judge = Callable[[Change, str, str, str], bool]
"""(change, field, old, new) -> whether it may be made; what may not is noted by whoever judges."""
ABSENT = "absent"


def plan(new: Document, wanted: Document, vmi: Document, judge: Judge) -> None:
    """Fills in `new`, the instance's spec to be."""
    networks, seconds = disks.by_name(wanted.get("networks")), second(new)
    asked = disks.by_name(_interfaces(wanted))
    for index, has in enumerate(_interfaces(new)):
        name, state = str(has.get("name")), _state(has)
        want = _state(asked[name]) if name in asked else ABSENT if name in seconds else state
        if want == state or state == ABSENT:
            continue
        change: Change = NicRemove(name) if want == ABSENT else NicLink(name, "down" if want == "down" else "up")
        if judge(change, f"domain.devices.interfaces[{name}].state", state, want):
            _set(new, index, {**has, "state": want})
    for interface in asked.values():
        _come(new, interface, networks.get(str(interface.get("name"))) or {}, vmi, judge)


def second(spec: Document) -> set[str]:
    """Names of the networks beside the pod's."""
    return {name for name, each in disks.by_name(spec.get("networks")).items() if each.get("multus") is not None}


def without(spec: Document, both: set[str]) -> tuple[list[Document], list[Document]]:
    """Networks and interfaces without what `plan` looks after; second networks that `both` sides name stay."""
    gone = second(spec) - both
    networks = [each for each in spec.get("networks") or () if each.get("name") not in gone]
    kept = [each for each in _interfaces(spec) if each.get("name") not in gone]
    return networks, [{key: value for key, value in each.items() if key != "state"} for each in kept]


def unlike(wanted: Document, has: Document, started: Document | None) -> Iterator[Difference]:
    """Where a card of a second network that came after the start is to be another than the one that runs: what was
    there at the start is compared with that. `has` is the running instance's spec."""
    running, asked = disks.by_name(_interfaces(has)), disks.by_name(_interfaces(wanted))
    networks, named_so = disks.by_name(has.get("networks")), disks.by_name(wanted.get("networks"))
    for name in sorted((second(wanted) & second(has)) - second(started or {})):
        card, other = running.get(name), asked.get(name)
        if card is None or other is None or ABSENT in (_state(card), _state(other)):
            continue
        yield from diff(networks[name], named_so[name], f"networks[{name}]")
        mac = {"macAddress": card.get("macAddress")}
        yield from diff(_lasting(card), _lasting(mac | _lasting(other)), f"domain.devices.interfaces[{name}]")


def _lasting(interface: Document) -> Document:
    """Without its cable, without what is said by an empty text, and its address in one way of writing."""
    said = {key: value for key, value in interface.items() if key != "state" and value not in (None, "")}
    mac = {"macAddress": defaults.plain_address(str(said["macAddress"]))} if "macAddress" in said else {}
    return said | mac


def _come(new: Document, interface: Document, network: Document, vmi: Document, judge: Judge) -> None:
    name = str(interface.get("name"))
    places = {str(each.get("name")): (index, each) for index, each in enumerate(_interfaces(new))}
    index, has = places.get(name, (-1, None))
    if network.get("multus") is None or _state(interface) == ABSENT or (has is not None and _state(has) != ABSENT):
        return
    attachment = str(network["multus"].get("networkName"))
    if not judge(NicAdd(interface, network), f"domain.devices.interfaces[{name}]", "unset", attachment):
        return
    card = {**interface, "state": _state(interface)}
    card["macAddress"] = defaults.address_of(interface, defaults.identity(vmi))
    if has is not None:
        _set(new, index, card)
    else:
        _put(new, [*_interfaces(new), card])
    new["networks"] = [each for each in new.get("networks") or () if each.get("name") != name] + [network]


def _state(interface: Document) -> str:
    return str(interface.get("state") or "up")


def _interfaces(spec: Document) -> list[Document]:
    return list((specs.domain(spec).get("devices") or {}).get("interfaces") or ())


def _set(new: Document, index: int, interface: Document) -> None:
    found = _interfaces(new)
    found[index] = interface
    _put(new, found)


def _put(new: Document, interfaces: list[Document]) -> None:
    new["domain"]["devices"] = {**(new["domain"].get("devices") or {}), "interfaces": interfaces}


def named(spec: Document, namespace: str) -> Iterator[str]:
    """NetworkAttachmentDefinitions that a spec in that namespace names."""
    return (attachments.from_within(said, namespace) for _, said in attachments.named(spec))
