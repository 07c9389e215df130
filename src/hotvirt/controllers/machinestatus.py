"""A machine's status, written by controllers beside the one that machines have."""

from hotvirt.kube.client import Client, Document
from hotvirt.kube.informer import Informer
from hotvirt.kube.resources import VMS


async def write(client: Client, machines: Informer, vm: Document, status: Document) -> Document:
    """The machine as written, which `machines` knows of then. Conflict: it is not as `vm` any more; NotFound."""
    metadata = vm["metadata"]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
    written = await client.patch(VMS, metadata["name"], patch, metadata["namespace"], subresource="status")
    machines.observe(written)
    return written
