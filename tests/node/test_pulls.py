"""Images of registries for guests that start: one pull for all who wait, and what each of them is told."""

import asyncio
import base64
import json
from pathlib import Path

import pytest

from hotvirt.images import pulled, registry
from hotvirt.images.errors import ImageError
from hotvirt.node import pulls
from hotvirt.node.pulls import NotHere, Pulls

NAME = "r.example/disk:1"


class Registry:
    """Stands in for `images.registry`: answers when it is told to."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.pulled, self.here = folder, [], None
        self.go, self.fault = asyncio.Event(), None
        monkeypatch.setattr(registry, "pull", self.pull)
        monkeypatch.setattr(pulled, "find", lambda *_: self.here)

    async def pull(self, name, wanted, cache, *, auths, progress):
        self.pulled.append((name, tuple(wanted), auths))
        progress("1 of 2 MiB", 0.5)
        await self.go.wait()
        if self.fault:
            raise ImageError(self.fault)
        return self.image()

    def image(self):
        path = self.folder / "file-1"
        path.touch()
        return pulled.Pulled(NAME, "sha256:1", {"/disk/a": path}, path, "raw", 512)


@pytest.fixture
async def world(tmp_path, monkeypatch):
    events, woken = [], []
    made = Pulls(
        tmp_path, say=lambda vmi, kind, reason, _: events.append((vmi["n"], kind, reason)),
        wake=lambda vmi: woken.append(vmi["n"]),
    )  # fmt: skip
    yield made, Registry(tmp_path, monkeypatch), events, woken
    await made.close()


async def ask(made, number, **source):
    try:
        return await made.image({"n": number}, f"u-{number}", {"image": NAME, **source})
    except NotHere as error:
        return error.reason, str(error)


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_pull_for_all_who_wait_for_it(world):
    made, there, events, woken = world
    assert await ask(made, 1) == ("Pulling", f"pulling image {NAME}")
    await settled()
    assert await ask(made, 2) == ("Pulling", f"pulling image {NAME}: 1 of 2 MiB")
    there.go.set()
    await settled()
    assert there.pulled == [(NAME, (), None)]
    assert woken == [1, 2]
    assert (await ask(made, 1)).digest == (await ask(made, 2)).digest == "sha256:1"
    assert events == [(1, "Normal", "Pulling"), (1, "Normal", "Pulled"), (2, "Normal", "Pulled")]


async def test_a_pull_that_fails_is_told_and_tried_again_later(world, monkeypatch):
    made, there, events, woken = world
    there.fault = "image r.example/disk:1: manifest unknown"
    there.go.set()
    await ask(made, 1)
    await settled()
    assert await ask(made, 1) == ("ErrImagePull", there.fault)
    assert await ask(made, 1) == ("ImagePullBackOff", f"waiting before pulling again: {there.fault}")
    assert (woken, events[1], len(there.pulled)) == ([1], (1, "Warning", "Failed"), 1)
    later = pulls.time.monotonic() + 11
    monkeypatch.setattr(pulls.time, "monotonic", lambda: later)
    there.fault = None
    assert (await ask(made, 1))[0] == "Pulling"
    await settled()
    assert (await ask(made, 1)).digest == "sha256:1"


async def test_an_image_that_is_here_is_pulled_by_policy_only(world):
    made, there, events, _ = world
    there.here = there.image()
    assert (await ask(made, 1)).digest == "sha256:1"
    assert events == [(1, "Normal", "Pulled")]
    assert (await ask(made, 2, imagePullPolicy="Always"))[0] == "Pulling"
    there.go.set()
    await settled()
    assert (await ask(made, 2, imagePullPolicy="Always")).digest == "sha256:1", "once for each start"
    assert len(there.pulled) == 1


async def test_never_is_never(world):
    made, there, _, _ = world
    reason, message = await ask(made, 1, imagePullPolicy="Never")
    assert (reason, there.pulled) == ("ErrImageNeverPull", [])
    assert message == f"image {NAME} is not on this machine, and imagePullPolicy is Never"


async def test_an_image_that_was_removed_meanwhile_is_pulled_again(world):
    made, there, _, _ = world
    there.go.set()
    await ask(made, 1)
    await settled()
    Path(there.folder / "file-1").unlink()
    assert (await ask(made, 1))[0] == "Pulling"


async def test_closing_ends_what_is_on_its_way(world):
    made, _, _, woken = world
    await ask(made, 1)
    await settled()
    await made.close()
    assert woken == []


def secret(document, key=".dockerconfigjson"):
    return {"data": {key: base64.b64encode(json.dumps(document).encode()).decode()}}


def test_credentials_of_a_pull_secret():
    entry = {"username": "u", "password": "p", "email": "x", "auth": ""}
    auth = base64.b64encode(b"u:p").decode()
    assert pulls.credentials(secret({"auths": {"r.io": entry}})) == {"r.io": {"auth": auth}}
    assert pulls.credentials(secret({"r.io": {"auth": auth}}, ".dockercfg")) == {"r.io": {"auth": auth}}
    helpers = {"auths": {}, "credsStore": "evil", "credHelpers": {"r.io": "evil"}}
    assert pulls.credentials(secret(helpers)) == {}, "no program is run for a secret"


@pytest.mark.parametrize("wrong", [{}, {"data": {}}, {"data": {".dockerconfigjson": "eA=="}}, secret([1]), secret({})])
def test_a_secret_that_is_no_pull_secret(wrong):
    with pytest.raises(ImageError, match="imagePullSecret is not of type"):
        pulls.credentials(wrong)
