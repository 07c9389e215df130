"""A status is written under the version that was read, unless it may be written over others', and the cache knows."""

import pytest

from hotvirt.kube import statuses
from hotvirt.kube.resources import NODES, VMS


class Api:
    """A client and a cache in one: tells what it was asked, and what it was told."""

    def __init__(self, resource):
        self.resource, self.asked, self.seen = resource, [], []

    async def patch(self, *asked, **options):
        self.asked.append((*asked, options))
        return {"written": len(self.asked)}

    def observe(self, obj):
        self.seen.append(obj)


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_status_is_written_and_seen(guarded):
    api, vm = Api(VMS), {"metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"}}
    assert await statuses.write(api, api, vm, {"a": 1}, guarded=guarded) == {"written": 1}
    patch = {"status": {"a": 1}, **({"metadata": {"resourceVersion": "7"}} if guarded else {})}
    assert api.asked == [(VMS, "web", patch, "shop", {"subresource": "status"})]
    assert api.seen == [{"written": 1}]


async def test_an_object_of_no_namespace():
    api = Api(NODES)
    await statuses.write(api, api, {"metadata": {"name": "one", "resourceVersion": "7"}}, {})
    assert api.asked[0][3] is None


def test_what_is_said_already_is_no_news():
    obj = {"status": {"a": 1, "b": None, "c": [1]}}
    assert statuses.news(obj, {"a": 1, "b": 2, "c": [1], "d": None, "e": 0}) == {"b": 2, "e": 0}
    assert statuses.news({}, {"a": 1}) == {"a": 1}
