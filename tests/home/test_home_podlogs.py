"""What may be asked of a pod's log, and its answer over HTTP."""

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from hotvirt.home import podlogs
from hotvirt.home.podlogs import Wish
from hotvirt.kube.errors import BadRequest
from hotvirt.node.places import PodPlace

POD = {"metadata": {"name": "virt-launcher-web-x"}, "spec": {"containers": [{"name": "compute"}]}}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, Wish(container="compute")),
        ({"container": "compute", "follow": "true", "tailLines": "5"}, Wish(container="compute", tail=5, follow=True)),
        ({"limitBytes": "9", "previous": "false", "timestamps": "false"}, Wish(container="compute", limit=9)),
    ],
)
def test_what_is_asked_for(query, expected):
    assert podlogs.wish(query, POD) == expected


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"container": "sidecar"}, "container sidecar is not valid for pod virt-launcher-web-x: it has compute"),
        ({"previous": "true"}, 'previous terminated container "compute"'),
        ({"timestamps": "true"}, "timestamps: these logs have no times"),
        ({"sinceSeconds": "60"}, "sinceSeconds: these logs have no times"),
        ({"tailLines": "-1"}, "tailLines: '-1' is not a number of at least 0"),
        ({"limitBytes": "0"}, "limitBytes: '0' is not a number of at least 1"),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_reason(query, said):
    with pytest.raises(BadRequest, match=said):
        podlogs.wish(query, POD)


async def test_the_log_over_http(tmp_path):
    place = PodPlace(tmp_path)

    async def handle(request):
        try:
            return await podlogs.serve(request, POD, place)
        except BadRequest as error:
            return web.Response(status=400, text=str(error))

    app = web.Application()
    app.router.add_get("/log", handle)
    async with TestServer(app) as server, ClientSession() as session:

        async def get(**query):
            async with session.get(server.make_url("/log"), params=query) as answer:
                return answer.status, await answer.text()

        assert await get() == (
            400,
            'container "compute" in pod "virt-launcher-web-x" is waiting to start: nothing was started yet',
        )
        place.log.write_text("one\ntwo\nthree\n")
        assert await get() == (200, "one\ntwo\nthree\n")
        assert await get(tailLines="2") == (200, "two\nthree\n")
        assert await get(tailLines="2", limitBytes="5") == (200, "two\nt")
        assert await get(follow="true") == (200, "one\ntwo\nthree\n")  # its process is gone
