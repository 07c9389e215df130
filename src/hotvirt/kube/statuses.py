"""A status as a controller writes it: merged into what the object has, and in the controller's cache at once."""

from hotvirt.kube.client import Client, Document
from hotvirt.kube.informer import Informer


async def write(client: Client, cache: Informer, obj: Document, status: Document, *, guarded: bool = True) -> Document:
    """The object as written. NotFound: it went. `guarded`: Conflict when it is not as `obj` any more, so that nothing
    is decided on what somebody else has changed meanwhile."""
    metadata = obj["metadata"]
    patch: Document = {"status": status}
    if guarded:
        patch["metadata"] = {"resourceVersion": metadata["resourceVersion"]}
    written = await client.patch(
        cache.resource, metadata["name"], patch, metadata.get("namespace"), subresource="status"
    )
    cache.observe(written)
    return written


def news(obj: Document, status: Document) -> Document:
    """What of `status` the object does not say yet."""
    old = obj.get("status") or {}
    return {key: value for key, value in status.items() if old.get(key) != value}
