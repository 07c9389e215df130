"""The facts of a machine on an upstream KubeVirt, read by the caller himself: what he may not read is not known."""

from collections.abc import Callable
from typing import TypeVar

from msgspec import structs

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.kube.client import Document
from hotvirt.kube.errors import ApiError, Forbidden, NotFound, Unauthorized
from hotvirt.kube.resources import (
    ATTACHMENTS,
    CLAIMS,
    KUBEVIRTS,
    MIGRATIONS,
    NODES,
    STORAGE_CLASSES,
    VMIS,
    VMS,
    Resource,
)
from hotvirt.preconditions import asked, gather, upstream
from hotvirt.preconditions import report as reports
from hotvirt.preconditions.changes import Change, CpuChange, MemoryChange
from hotvirt.preconditions.check import check_stopped
from hotvirt.preconditions.facts import Caller
from hotvirt.preconditions.gather import REVIEWS, Read

T = TypeVar("T")
SELF_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
EXPANDED = "/apis/subresources.kubevirt.io/v1/namespaces/{}/virtualmachines/{}/expand-spec"


def report(api: Api, name: str, texts: tuple[str, ...]) -> Document:
    """As hotvirt's own API answers, by upstream's rules."""
    vm = api.get(VMS, name, api.namespace)
    expanded = _unless_refused(lambda: api.request("GET", EXPANDED.format(api.namespace, name))) or vm
    vmi = _unless_refused(lambda: api.get(VMIS, name, api.namespace))
    around = _surroundings(api, name)
    facts = structs.replace(around.facts, sized_by=gather.sized_by(vm, expanded))
    around = structs.replace(around, facts=facts)
    running = vmi if reports.is_running(vmi) else None
    try:
        changes: dict[str, Change] = {text: asked.read(text, expanded, running) for text in texts}
    except ValueError as error:
        raise CliError(str(error)) from error
    if running is None:
        template = {"metadata": vm["metadata"], "spec": expanded["spec"]["template"]["spec"]}
        wanted = changes or {"any": MemoryChange(upstream.LEAST)}
        found = [reports.judgement(text, check_stopped(each, template, around.facts)) for text, each in wanted.items()]
    elif changes:
        found = [reports.judgement(text, upstream.check(each, vm, running, around)) for text, each in changes.items()]
    else:
        found = _overview(vm, running, around)
    return reports.report(vm, vmi, found, rules="kubevirt").document()


def _overview(vm: Document, vmi: Document, around: upstream.Surroundings) -> list[reports.Judgement]:
    """The most that each could be, by its declared maximum."""
    memory, sockets = upstream.reach(vmi)
    found = []
    for what, now, change, most in (
        ("memory", memory[0], MemoryChange(memory[2]), memory[1]),
        ("cpu", str(sockets[0]), CpuChange(sockets[1]), f"{sockets[1]} sockets"),
    ):
        found.append(reports.judgement(what, upstream.check(change, vm, vmi, around), now=now, least=now, most=most))
    return found


def _surroundings(api: Api, name: str) -> upstream.Surroundings:
    space = api.namespace
    kubevirts = _items(api, KUBEVIRTS)
    kubevirt = next(iter(kubevirts or ()), None)
    attachments = _items(api, ATTACHMENTS)
    read = Read(
        kubevirt=kubevirt,
        claims=_items(api, CLAIMS, space),
        classes=_items(api, STORAGE_CLASSES),
        vmis=_items(api, VMIS, space),
        attachments=_items(api, ATTACHMENTS, space) if attachments is None else attachments,
        knows_elsewhere=attachments is not None,
        caller=_caller(api, space),
    )
    return upstream.surroundings(
        kubevirt, nodes=_items(api, NODES), migrations=_items(api, MIGRATIONS, space), name=name,
        facts=gather.facts(read, name, space),
    )  # fmt: skip


def _caller(api: Api, space: str) -> Caller | None:
    may = {}
    for what, attributes in REVIEWS.items():
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "namespace": space}},
        }
        answer = _unless_refused(lambda body=body: api.request("POST", SELF_REVIEWS, body=body))  # type: ignore[misc]
        if answer is None:
            return None
        may[what] = bool((answer.get("status") or {}).get("allowed"))
    return Caller(may=may)


def _items(api: Api, resource: Resource, space: str | None = None) -> list[Document] | None:
    return _unless_refused(lambda: api.list(resource, space))


def _unless_refused(call: Callable[[], T]) -> T | None:
    """None for what is not there, or not to be read."""
    try:
        return call()
    except (NotFound, Forbidden, Unauthorized):
        return None
    except ApiError as error:
        if error.code in (404, 405, 501):
            return None
        raise
