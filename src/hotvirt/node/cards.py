"""Network cards of a running guest: what its VMI names against what QEMU has, as jobs of the guest.

A guest starts with its cards, in their order. Those of networks that this node did not know then come when it runs, as
do and go those that an edit names; each joins a bridge of this node that a NetworkAttachmentDefinition names. A cable
that is to be out is pulled: QEMU does not say whether it is, so that is done anew by each home that finds the guest.
"""

import os
from collections.abc import Awaitable, Callable

from hotvirt.api import attachments
from hotvirt.api.attachments import AttachmentError, Bridge
from hotvirt.kube.client import Document
from hotvirt.node.guest import Guest
from hotvirt.node.network import Network, NetworkError, attachment_names, interfaces
from hotvirt.qemu.errors import HotplugError
from hotvirt.qemu.nics import attach_nic, detach_nic, set_link
from hotvirt.qemu.progress import Report
from hotvirt.qemu.state import Observed

Waiting = dict[str, tuple[str, str]]
"""Interface -> (reason, message) of those that cannot come yet."""
Attachment = Callable[[str], Awaitable[Document | None]]
"""The NetworkAttachmentDefinition that a network of the guest names so: `lan`, or `other/lan` of another namespace."""


def job_of(interface: str) -> str:
    return f"card {interface}"


async def cards(vmi: Document, guest: Guest, observed: Observed, network: Network, attachment: Attachment) -> Waiting:
    waiting: Waiting = {}
    named = attachment_names(vmi)
    wanted = {each["name"]: (place, each) for place, each in enumerate(interfaces(vmi)) if _is_wanted(each)}
    for name in set(observed.nics) - wanted.keys():
        _detach(guest, name)
    for name, (place, each) in wanted.items():
        if name in observed.nics:
            _keep(guest, name, is_up=each.get("state") != "down")
        elif name in named:
            try:
                bridge = await _bridge(named[name], attachment)
            except (AttachmentError, NetworkError) as error:
                waiting[name] = ("NetworkNotFound", f"interface {name!r}: {error}")
                continue
            _attach(guest, each, place, network, bridge)
    for kind in [kind for kind in guest.jobs if kind.startswith("card ")]:
        name = kind.removeprefix("card ")
        if name not in wanted and name not in observed.nics and not guest.jobs[kind].is_running:
            guest.drop(kind)
    return waiting


async def bridges(vmi: Document, attachment: Attachment) -> dict[str, Bridge]:
    """Interface -> where it joins, of those whose network is known now."""
    found = {}
    for interface, name in attachment_names(vmi).items():
        try:
            found[interface] = await _bridge(name, attachment)
        except AttachmentError:
            continue
    return found


def _is_wanted(interface: Document) -> bool:
    return bool(interface.get("state") != "absent")


async def _bridge(attachment_name: str, attachment: Attachment) -> Bridge:
    found = await attachment(attachment_name)
    if found is None:
        raise AttachmentError(f"there is no NetworkAttachmentDefinition {attachment_name}: create it")
    return attachments.bridge(found, called=attachment_name)


def _keep(guest: Guest, name: str, *, is_up: bool) -> None:
    job = guest.jobs.get(job_of(name))
    if guest.links.get(name, not is_up) != is_up:

        async def run(_: Report) -> None:
            await set_link(guest.monitor, name, up=is_up)
            guest.links[name] = is_up

        guest.want(job_of(name), ("link", is_up), run)
    elif job is not None and not job.is_running:
        guest.drop(job_of(name))


def _attach(guest: Guest, interface: Document, place: int, network: Network, bridge: Bridge) -> None:
    name = interface["name"]

    async def run(_: Report) -> None:
        try:
            nic, tap = await network.second(interface, bridge=bridge, place=place, uid=guest.uid)
        except NetworkError as error:
            raise HotplugError("NetworkNotFound", str(error)) from error
        try:
            await attach_nic(guest.monitor, nic, agent=guest.answering)
        finally:
            os.close(tap)
        guest.links[name] = nic.link_up
        guest.look_again()

    guest.want(job_of(name), ("attach", bridge.name), run)


def _detach(guest: Guest, name: str) -> None:
    async def run(_: Report) -> None:
        await detach_nic(guest.monitor, name)
        guest.links.pop(name, None)

    guest.want(job_of(name), ("detach",), run)
