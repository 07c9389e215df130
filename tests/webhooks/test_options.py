"""What a verb's request may say, and the words for what it may not."""

import pytest
from aiohttp.test_utils import make_mocked_request

from hotvirt.kube.errors import BadRequest, TooLarge
from hotvirt.webhooks import durations, options


class Request:
    def __init__(self, body=b"", query=""):
        self._body, self.content_length = body, len(body)
        self.query = make_mocked_request("PUT", f"/x?{query}").query

    async def read(self):
        return self._body


ACCEPTED = {
    "nothing": (b"", "", options.START, {}),
    "null": (b" null ", "", options.START, {}),
    "go's nulls": (b'{"paused":null,"dryRun":null}', "", options.START, {}),
    "kind and version": (
        b'{"kind":"StartOptions","apiVersion":"x","paused":true}', "", options.START,
        {"kind": "StartOptions", "apiVersion": "x", "paused": True},
    ),
    "dry run": (b'{"dryRun":["All"]}', "", options.DRY_RUN, {"dryRun": ["All"]}),
    "dry run by query": (b"", "dryRun=All", options.DRY_RUN, {"dryRun": ["All"]}),
    "empty dry run": (b'{"dryRun":[]}', "", options.DRY_RUN, {"dryRun": []}),
    "nested": (
        b'{"name":"d","disk":{"name":"d","disk":{"bus":"scsi"}},"volumeSource":{"dataVolume":{"name":"x"}}}', "",
        options.ADD_VOLUME,
        {"name": "d", "disk": {"name": "d", "disk": {"bus": "scsi"}}, "volumeSource": {"dataVolume": {"name": "x"}}},
    ),
    "map": (b'{"addedNodeSelector":{"a":"b"}}', "", options.MIGRATE, {"addedNodeSelector": {"a": "b"}}),
}  # fmt: skip


@pytest.mark.parametrize(("body", "query", "fields", "expected"), ACCEPTED.values(), ids=ACCEPTED)
async def test_accepted(body, query, fields, expected):
    assert await options.read(Request(body, query), fields) == expected


REFUSED = {
    "no json": (b"{", "", options.START, "Can not unmarshal Request body"),
    "no object": (b"[1]", "", options.START, "must be a JSON object"),
    "not utf-8": (b'{"a":"\xff"}', "", options.START, "Can not unmarshal Request body"),
    "nested without end": (b'{"disk":' * 5000, "", options.ADD_VOLUME, "Can not unmarshal Request body"),
    "unknown": (b'{"pause":true}', "", options.START, "unknown field 'pause'"),
    "both faults": (b'{"pause":1,"gracePeriod":"1"}', "", options.STOP, "unknown field 'pause'; gracePeriod must be"),
    "unknown within": (
        b'{"disk":{"disk":{"bush":"scsi"}}}', "", options.ADD_VOLUME, "unknown field 'disk.disk.bush'",
    ),
    "type": (b'{"paused":"yes"}', "", options.START, "paused must be of type boolean"),
    "a number is no yes": (b'{"paused":1}', "", options.START, "paused must be of type boolean"),
    "list": (b'{"dryRun":"All"}', "", options.DRY_RUN, "dryRun must be a list"),
    "list's item": (b'{"dryRun":[1]}', "", options.DRY_RUN, r"dryRun\[0\] must be of type string"),
    "dry run": (b'{"dryRun":["Some"]}', "", options.DRY_RUN, "may only be"),
    "dry run by query": (b"", "dryRun=yes", options.DRY_RUN, "may only be"),
    "map's item": (b'{"addedNodeSelector":{"a":1}}', "", options.MIGRATE, "addedNodeSelector.a must be of type string"),
    "map": (b'{"addedNodeSelector":[]}', "", options.MIGRATE, "addedNodeSelector must be an object"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "query", "fields", "says"), REFUSED.values(), ids=REFUSED)
async def test_refused(body, query, fields, says):
    with pytest.raises(BadRequest, match=says):
        await options.read(Request(body, query), fields)


async def test_a_body_is_bounded():
    with pytest.raises(TooLarge):
        await options.read(Request(b'{"kind":"' + b"x" * options.LARGEST + b'"}'), options.START)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("0s", 0), ("30s", 30), ("5m0s", 300), ("1h30m", 5400), ("1.5h", 5400), (".5s", 0.5), ("250ms", 0.25),
     ("+1m", 60), ("1µs", 1e-6)],
)  # fmt: skip
def test_durations(text, expected):
    assert durations.seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 s", "soon", "1h-5m", "9999999999999h", "1" * 80 + "s", "٣s"])
def test_no_durations(text):
    with pytest.raises(ValueError, match="duration"):
        durations.seconds(text)


@pytest.mark.parametrize(("value", "expected"), [("", False), ("true", True), ("1", True), ("False", False)])
def test_flags(value, expected):
    assert options.flag(Request(query=f"preserveSession={value}"), "preserveSession") is expected
