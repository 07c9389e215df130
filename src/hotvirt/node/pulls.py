"""Images of registries for guests that are to start: pulled once for all who wait, in the background.

A guest's start asks for its image and is refused with `NotHere` until it is there: Pulling, then ErrImagePull and
ImagePullBackOff as a kubelet has it. Whoever was refused is woken when something changed. Belongs to one event loop.
"""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hotvirt.images import pulled, registry
from hotvirt.images.errors import ImageError
from hotvirt.images.pulled import Pulled
from hotvirt.kube.backoff import Backoff
from hotvirt.kube.client import Document

PULLING = "Pulling"
REASONS = (PULLING, "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull")
BACKOFF = Backoff(base=10, cap=300)
AT_ONCE = 3
_REMEMBERED = 1024

Say = Callable[[Document, Literal["Normal", "Warning"], str, str], None]
Wake = Callable[[Document], None]
Auths = dict[str, dict[str, str]]


class NotHere(Exception):
    """`reason` is one of REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Pull:
    """One image on its way, or one that failed to come."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.step = "waiting for its turn"
        self.error = ""
        self.failures = 0
        self.retry_at = 0.0
        self.waiting: dict[str, Document] = {}
        self.told: set[str] = set()


class Pulls:
    def __init__(self, images: Path, *, say: Say | None = None, wake: Wake | None = None) -> None:
        self._images, self._say, self._wake = images, say or _silent, wake or _nobody
        self._pulls: dict[str, _Pull] = {}
        self._served: dict[tuple[str, str], Pulled] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def image(
        self, vmi: Document, uid: str, source: Document, *, wanted: Sequence[str] = (), auths: Auths | None = None
    ) -> Pulled:
        """The image of a containerDisk or kernel of a registry, for the guest of the pod `uid`."""
        name = str(source["image"])
        policy = source.get("imagePullPolicy") or pulled.reference_of(name).policy
        what = json.dumps([name, *wanted, auths])
        if (found := self._served.get((uid, what))) is not None and found.files and _are_there(found):
            return found
        if policy != "Always":
            here = await asyncio.to_thread(pulled.find, name, wanted, self._images)
            if here is not None:
                return self._serve(vmi, uid, what, here, f'Container image "{name}" already present on machine')
        if policy == "Never":
            raise NotHere("ErrImageNeverPull", f"image {name} is not on this machine, and imagePullPolicy is Never")
        return self._wait(vmi, uid, what, name=name, wanted=wanted, auths=auths)

    def _wait(
        self, vmi: Document, uid: str, what: str, *, name: str, wanted: Sequence[str], auths: Auths | None
    ) -> Pulled:
        pull = self._pulls.setdefault(what, _Pull())
        pull.waiting[uid] = vmi
        if pull.task is not None:
            raise NotHere(PULLING, f"pulling image {name}: {pull.step}")
        if pull.error and uid not in pull.told:
            pull.told.add(uid)
            raise NotHere("ErrImagePull", pull.error)
        if time.monotonic() < pull.retry_at:
            self._say(vmi, "Normal", "BackOff", f'Back-off pulling image "{name}"')
            raise NotHere("ImagePullBackOff", f"waiting before pulling again: {pull.error}")
        pull.task = asyncio.create_task(self._pull(pull, what, name=name, wanted=wanted, auths=auths))
        self._say(vmi, "Normal", PULLING, f'Pulling image "{name}"')
        raise NotHere(PULLING, f"pulling image {name}")

    async def _pull(
        self, pull: _Pull, what: str, *, name: str, wanted: Sequence[str], auths: Auths | None
    ) -> None:  # fmt: skip
        def progress(step: str, _: float | None) -> None:
            pull.step = step

        began = time.monotonic()
        try:
            async with self._turns:
                found = await registry.pull(name, wanted, self._images, auths=auths, progress=progress)
        except (ImageError, OSError) as error:
            pull.task, pull.error, pull.told = None, str(error), set()
            pull.failures += 1
            pull.retry_at = time.monotonic() + BACKOFF.delay(pull.failures)
            waiting, pull.waiting = pull.waiting, {}
            for vmi in waiting.values():
                self._say(vmi, "Warning", "Failed", f'Failed to pull image "{name}": {error}')
                self._wake(vmi)
            return
        del self._pulls[what]
        took = f"{time.monotonic() - began:.3g}s"
        for uid, vmi in pull.waiting.items():
            self._serve(vmi, uid, what, found, f'Successfully pulled image "{name}" in {took}')
            self._wake(vmi)

    def _serve(self, vmi: Document, uid: str, what: str, found: Pulled, message: str) -> Pulled:
        """From now on this guest has this very image, whatever its name comes to mean while it tries to start."""
        while len(self._served) >= _REMEMBERED:
            self._served.pop(next(iter(self._served)))
        self._served[uid, what] = found
        self._say(vmi, "Normal", "Pulled", message)
        return found

    async def close(self) -> None:
        """Give up what is on its way; the next home begins again."""
        tasks = [pull.task for pull in self._pulls.values() if pull.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def credentials(secret: Document) -> Auths:
    """A pull secret's user names and passwords, and nothing else: such a file could also name programs to run."""
    data = secret.get("data") or {}
    for key in (".dockerconfigjson", ".dockercfg"):
        if key not in data:
            continue
        try:
            document: Any = json.loads(base64.b64decode(data[key]))
        except ValueError:
            break
        found = document.get("auths") if key == ".dockerconfigjson" and isinstance(document, dict) else document
        if isinstance(found, Mapping):
            return {str(host): _plain(entry) for host, entry in found.items() if isinstance(entry, Mapping)}
    raise ImageError("imagePullSecret is not of type kubernetes.io/dockerconfigjson: see kubectl create secret")


def _plain(entry: Mapping[str, Any]) -> dict[str, str]:
    """skopeo reads `auth` only, which kubectl writes beside the other two."""
    auth, user, password = (str(entry.get(field) or "") for field in ("auth", "username", "password"))
    if not auth and user:
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    token = str(entry.get("identitytoken") or "")
    return {"auth": auth, **({"identitytoken": token} if token else {})}


def _are_there(found: Pulled) -> bool:
    return all(path.exists() for path in found.files.values())


def _silent(vmi: Document, kind: str, reason: str, message: str) -> None:
    """Where nobody records events."""


def _nobody(vmi: Document) -> None:
    """Where nobody waits."""
