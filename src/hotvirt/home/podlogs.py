"""`kubectl logs` of a launcher pod, over HTTP: what its QEMU printed, and what its guest did on its serial port.

What kubelets offer and this log cannot give (times, an earlier container's log) is refused with its reason rather than
answered with something else. A client that goes away ends its request, and that the following.
"""

from collections.abc import Mapping
from contextlib import aclosing

from aiohttp import web
from msgspec import Struct

from hotvirt.kube.client import Document
from hotvirt.kube.errors import BadRequest
from hotvirt.node import podlog
from hotvirt.node.places import PodPlace

CONSOLE_LOG = "guest-console-log"
UNTIMED = ("timestamps", "sinceSeconds", "sinceTime")


class Wish(Struct, frozen=True, kw_only=True):
    """`limit` in bytes. None is no limit."""

    container: str
    tail: int | None = None
    limit: int | None = None
    follow: bool = False


def wish(query: Mapping[str, str], pod: Document) -> Wish:
    """What is asked for. BadRequest for what cannot be had. Pure."""
    name = pod["metadata"]["name"]
    spec = pod["spec"]
    containers = [each["name"] for each in (*spec["containers"], *(spec.get("initContainers") or ()))]
    container = query.get("container") or containers[0]
    if container not in containers:
        raise BadRequest(f"container {container} is not valid for pod {name}: it has {', '.join(containers)}")
    if _is_true(query.get("previous")):
        raise BadRequest(
            f'previous terminated container "{container}" in pod "{name}" not found: '
            "a guest that starts again does so in a new pod"
        )
    for option in UNTIMED:
        if query.get(option) and (option != "timestamps" or _is_true(query[option])):
            raise BadRequest(f"{option}: these logs have no times; leave it out, or use tailLines")
    return Wish(
        container=container, tail=_number(query, "tailLines", least=0), limit=_number(query, "limitBytes", least=1),
        follow=_is_true(query.get("follow")),
    )  # fmt: skip


async def serve(request: web.Request, pod: Document, place: PodPlace) -> web.StreamResponse:
    wanted = wish(request.query, pod)
    log_file = place.console_log if wanted.container == CONSOLE_LOG else place.log
    if not log_file.exists():
        name = pod["metadata"]["name"]
        raise BadRequest(f'container "{wanted.container}" in pod "{name}" is waiting to start: nothing was started yet')
    response = web.StreamResponse(headers={"Content-Type": "text/plain", "X-Content-Type-Options": "nosniff"})
    await response.prepare(request)
    left = wanted.limit
    async with aclosing(podlog.read(place, log_file, tail=wanted.tail, follow=wanted.follow)) as log:
        async for data in log:
            await response.write(data if left is None else data[:left])
            if left is not None and (left := left - len(data)) <= 0:
                break
    await response.write_eof()
    return response


def _is_true(value: str | None) -> bool:
    return value is not None and value.lower() in ("true", "1", "t")


def _number(query: Mapping[str, str], name: str, *, least: int) -> int | None:
    if (text := query.get(name)) is None:
        return None
    if not text.isdecimal() or int(text) < least:
        raise BadRequest(f"{name}: {text!r} is not a number of at least {least}")
    return int(text)
