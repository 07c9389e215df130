"""The controllers die after each of their writes in turn, the answer lost, and others take over: everything comes out
as if nobody had died, and nothing was made twice."""

import asyncio

import pytest

from hotvirt.kube.resources import CONTROLLER_REVISIONS, PODS, VMIS, VMS

pytestmark = pytest.mark.looptime


class Mortal:
    """A client whose `last` write is stored, and never answered. Each write passes through here, so it counts them."""

    def __init__(self, api, last=0):
        self._api, self.writes, self._last, self.dead = api, 0, last, asyncio.Event()

    def __getattr__(self, name):
        call = getattr(self._api, name)
        if name not in ("create", "patch", "delete", "post", "update"):
            return call

        async def write(*args, **kwargs):
            if self.dead.is_set():
                await asyncio.Event().wait()
            answer = await call(*args, **kwargs)
            self.writes += 1
            if self.writes == self._last:
                self.dead.set()
                await asyncio.Event().wait()
            return answer

        return write


def vm_of(api):
    return api.find(VMS, "web")


def state(api):
    return vm_of(api)["status"]["printableStatus"]


def uid(api):
    return api.find(VMIS, "web")["metadata"]["uid"]


async def request(api, *requests):
    await api.patch(VMS, "web", {"status": {"stateChangeRequests": list(requests)}}, subresource="status")


def runs_once(api):
    assert state(api) == "Running"
    assert vm_of(api)["status"]["ready"]
    assert [len(api.all(kind)) for kind in (VMIS, PODS, CONTROLLER_REVISIONS)] == [1, 1, 1]
    assert "stateChangeRequests" not in vm_of(api)["status"]


class Start:
    strategy = "Manual"

    async def ask(self, api, node):
        await request(api, {"action": "Start"})

    check = staticmethod(runs_once)


class StartPaused(Start):
    strategy = "Halted"

    async def ask(self, api, node):
        await request(api, {"action": "Start", "data": {"paused": "true"}})

    def check(self, api):
        runs_once(api)
        assert vm_of(api)["spec"]["runStrategy"] == "Always"
        assert api.find(VMIS, "web")["spec"]["startStrategy"] == "Paused"


class Stop:
    strategy = "Always"

    async def ask(self, api, node):
        await api.patch(VMS, "web", {"spec": {"runStrategy": "Halted"}})

    def check(self, api):
        assert state(api) == "Stopped"
        assert api.all(VMIS) == api.all(PODS) == []


class Restart:
    strategy = "RerunOnFailure"

    async def ask(self, api, node):
        self.old = uid(api)
        await request(api, {"action": "Stop", "uid": self.old}, {"action": "Start"})

    def check(self, api):
        runs_once(api)
        assert uid(api) != self.old


class Delete(Stop):
    async def ask(self, api, node):
        await api.delete(VMS, "web")

    def check(self, api):
        assert api.all(VMS) == api.all(VMIS) == api.all(PODS) == []


class Failure(Restart):
    async def ask(self, api, node):
        self.old = uid(api)
        await node.end(api.find(VMIS, "web"), "Failed")

    def check(self, api):
        super().check(api)
        assert "startFailure" not in vm_of(api)["status"]


class Edit:
    strategy = "Always"

    async def ask(self, api, node):
        self.old = uid(api)
        await api.patch(VMS, "web", {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "2Gi"}}}}}})

    def check(self, api):
        runs_once(api)
        assert uid(api) == self.old
        assert api.find(VMIS, "web")["spec"]["domain"]["memory"]["guest"] == "2Gi"


class Adoption(Edit):
    async def ask(self, api, node):
        await super().ask(api, node)
        await api.patch(VMIS, "web", {"metadata": {"ownerReferences": None}})


async def lived(home, api, make, case, *, last):
    """The case, with the controllers dying at their `last` write of it (0: never). How many writes they made."""
    client = Mortal(api, last)
    async with home():
        await api.create(VMS, make.vm(strategy=case.strategy))
        await asyncio.sleep(1)
    async with home(client=client) as node:
        await case.ask(api, node)
        died = asyncio.create_task(client.dead.wait())
        await asyncio.wait([died], timeout=60)
        died.cancel()
    async with home():
        await asyncio.sleep(60)
    case.check(api)
    return client.writes


@pytest.mark.parametrize("case", [Start, StartPaused, Stop, Restart, Delete, Failure, Edit, Adoption])
async def test_killed_after_each_write(home, api, make, case):
    writes = await lived(home, api, make, case(), last=0)
    assert writes >= 2
    for last in range(1, writes + 1):
        for known in (api.objects, api.log, api.writes):
            known.clear()
        assert await lived(home, api, make, case(), last=last) == last, "it did not come to this write"
