"""objectgraph: a machine, and all objects it cannot be moved or backed up without. Pure but for reading pods.

Each node refers to an object; `optional` are those that a copy elsewhere can do without.
"""

from collections.abc import Iterator

from hotvirt.api import instancetype_matchers as matchers
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import BadRequest
from hotvirt.kube.resources import PODS

_GROUPS = {
    "virtualmachines": "kubevirt.io",
    "virtualmachineinstances": "kubevirt.io",
    "datavolumes": "cdi.kubevirt.io",
    "controllerrevisions": "apps",
}
LAUNCHER = "kubevirt.io=virt-launcher"


async def pod_of(client: Client, name: str, namespace: str) -> str:
    """The launcher pod of an instance, "" when there is none."""
    pods = await client.list(PODS, namespace, label_selector=LAUNCHER)
    of_it = [
        pod["metadata"]["name"]
        for pod in pods["items"]
        if (pod["metadata"].get("annotations") or {}).get("kubevirt.io/domain") == name
    ]
    return str(of_it[-1]) if of_it else ""


def of_machine(vm: Document, pod: str) -> Document:
    name, namespace = vm["metadata"]["name"], vm["metadata"]["namespace"]
    spec: Document = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
    children = []
    if (vm.get("status") or {}).get("created"):
        below = [_node("pods", pod, namespace)] if pod else []
        children.append(_node("virtualmachineinstances", name, namespace, below))
    children += _sizes(vm, namespace)
    children += _contents(spec, namespace)
    return _node("virtualmachines", name, namespace, children)


def of_instance(vmi: Document, pod: str) -> Document:
    name, namespace = vmi["metadata"]["name"], vmi["metadata"]["namespace"]
    children = [_node("pods", pod, namespace)] if pod else []
    children += _contents(vmi["spec"], namespace)
    return _node("virtualmachineinstances", name, namespace, children)


def chosen(graph: Document, options: Document) -> Document:
    """Without optional nodes where they are not asked for. KubeVirt's default is with them."""
    if options.get("labelSelector"):
        raise BadRequest("labelSelector is not supported here: leave it out, and choose from the whole graph")
    if options.get("includeOptionalNodes") is False:
        return _without_optional(graph)
    return graph


def _without_optional(node: Document) -> Document:
    below = [_without_optional(each) for each in node.get("children") or () if not each.get("optional")]
    rest = {key: value for key, value in node.items() if key != "children"}
    return {**rest, "children": below} if below else rest


def _sizes(vm: Document, namespace: str) -> Iterator[Document]:
    for what in matchers.BOTH:
        found = matchers.matcher(vm, what)
        if found is None or not found.kind:
            continue
        plural = f"{found.kind.lower()}s"
        yield _node(plural, found.name, "" if found.is_cluster else namespace, optional=True)
        if revision := matchers.revision_of(vm, found):
            yield _node("controllerrevisions", revision, namespace)


def _contents(spec: Document, namespace: str) -> Iterator[Document]:
    for credential in spec.get("accessCredentials") or ():
        for kind in ("sshPublicKey", "userPassword"):
            if secret := (((credential.get(kind) or {}).get("source") or {}).get("secret") or {}).get("secretName"):
                yield _node("secrets", secret, namespace)
    for volume in spec.get("volumes") or ():
        yield from _volume(volume, namespace)


def _volume(volume: Document, namespace: str) -> Iterator[Document]:
    if name := (volume.get("dataVolume") or {}).get("name"):
        yield _node("datavolumes", name, namespace, [_node("persistentvolumeclaims", name, namespace)])
    for kind in ("persistentVolumeClaim", "memoryDump"):
        if name := (volume.get(kind) or {}).get("claimName"):
            yield _node("persistentvolumeclaims", name, namespace)
    for kind, field, plural in (
        ("configMap", "name", "configmaps"), ("secret", "secretName", "secrets"),
        ("serviceAccount", "serviceAccountName", "serviceaccounts"),
    ):  # fmt: skip
        if name := (volume.get(kind) or {}).get(field):
            yield _node(plural, name, namespace)
    for kind in ("cloudInitNoCloud", "cloudInitConfigDrive"):
        for field in ("secretRef", "networkDataSecretRef"):
            if name := ((volume.get(kind) or {}).get(field) or {}).get("name"):
                yield _node("secrets", name, namespace)


def _node(
    plural: str, name: str, namespace: str, children: list[Document] | None = None, *, optional: bool = False
) -> Document:
    group = "instancetype.kubevirt.io" if plural.startswith("virtualmachine") else ""
    reference: Document = {"apiGroup": _GROUPS.get(plural, group), "kind": plural, "name": name}
    if namespace:
        reference["namespace"] = namespace
    node: Document = {"objectReference": reference}
    if children:
        node["children"] = children
    return {**node, "optional": True} if optional else node
