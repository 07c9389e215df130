"""Waiting for an object to come to a state, by watching it; each watch begins at what was last seen."""

import time
from collections.abc import Callable, Iterator

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.kube.client import Document
from hotvirt.kube.errors import Gone, NotFound
from hotvirt.kube.resources import VMS, Resource

PATIENCE = 300.0


def observe(api: Api, resource: Resource, name: str, *, timeout: float) -> Iterator[Document]:
    """The object now, then at each change, until `timeout` seconds are over. {} while there is none."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        try:
            now = api.get(resource, name, api.namespace)
            version = now["metadata"]["resourceVersion"]
        except NotFound:
            listed = api.request("GET", resource.path(api.namespace), query={"fieldSelector": f"metadata.name={name}"})
            now = next(iter(listed.get("items") or ()), {})
            version = listed["metadata"]["resourceVersion"]
        yield now
        try:
            for changed in api.watch(resource, api.namespace, name=name, version=version, timeout=left):
                yield {} if changed.get("deleted") else changed
        except Gone:
            continue


def wait_for(
    api: Api,
    resource: Resource,
    name: str,
    is_done: Callable[[Document], bool],
    *,
    what: str,
    timeout: float = PATIENCE,
) -> Document:
    """The object once `is_done`; CliError with what its status says when that takes too long."""
    last: Document = {}
    for last in observe(api, resource, name, timeout=timeout):
        if is_done(last):
            return last
    raise CliError(f"{resource.kind} {name} is not {what} after {timeout:g} s: {_state(last)}")


def wait_for_vm(api: Api, name: str, states: tuple[str, ...], *, timeout: float = PATIENCE) -> Document:
    """The VM once its printableStatus is one of `states`."""
    return wait_for(
        api, VMS, name, lambda vm: (vm.get("status") or {}).get("printableStatus") in states,
        what=" or ".join(states), timeout=timeout,
    )  # fmt: skip


def _state(obj: Document) -> str:
    if not obj:
        return "it does not exist"
    status = obj.get("status") or {}
    said = [c["message"] for c in status.get("conditions") or () if c.get("message") and c.get("status") != "True"]
    state = status.get("printableStatus") or status.get("phase") or "no status yet"
    return "; ".join([f"it is {state}", *said])
