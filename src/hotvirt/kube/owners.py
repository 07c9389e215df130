"""Owner references: whose an object is, so that it goes when that goes. Pure."""

from hotvirt.kube.client import Document
from hotvirt.kube.resources import Resource


def controller_of(obj: Document) -> Document | None:
    """The reference to the owner that controls the object."""
    return next((r for r in obj["metadata"].get("ownerReferences") or () if r.get("controller")), None)


def reference(resource: Resource, owner: Document, *, blocks: bool = True) -> Document:
    """What makes `owner`, of `resource`, an object's controller. `blocks`: deleted in the foreground, the owner waits
    for the object to go."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": blocks,
    }
