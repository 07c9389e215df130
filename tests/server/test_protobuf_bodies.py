"""Bodies as kubectl and client-go send them for built-in kinds."""

import pytest

from hotvirt.kube.errors import BadRequest, UnsupportedMediaType
from hotvirt.server import protobuf


def field(number: int, value: bytes | str | int) -> bytes:
    """One field on the wire, of less than 128 bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(data)]) + data


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    size = len(raw)
    length = bytes([size & 0x7F | 0x80, size >> 7]) if size > 127 else bytes([size])
    return protobuf.MAGIC + field(1, field(1, api_version) + field(2, kind)) + bytes([2 << 3 | 2]) + length + raw


def test_a_config_map() -> None:
    meta = field(1, "c") + field(2, "") + field(8, b"") + field(11, field(1, "app") + field(2, "web"))
    raw = field(1, meta) + field(2, field(1, "key") + field(2, "value")) + field(3, field(1, "b") + field(2, b"\xff"))
    assert protobuf.decode(body("v1", "ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "labels": {"app": "web"}},
        "data": {"key": "value"},
        "binaryData": {"b": "/w=="},
    }


def test_zeros_stay_where_they_are_meant() -> None:
    spec = field(1, 0) + field(3, field(2, field(1, field(1, "v") + field(2, field(2, b"")))))
    found = protobuf.decode(body("apps/v1", "Deployment", field(2, spec)))
    assert found["spec"]["replicas"] == 0
    assert found["spec"]["template"]["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert "status" not in found


def test_times_and_ports() -> None:
    seconds = bytes([1 << 3, 0x80, 0xA6, 0x9A, 0xD2, 0x06])
    event = protobuf.decode(body("v1", "Event", field(6, seconds)))
    assert event["firstTimestamp"].endswith("Z")
    port = field(1, "") + field(3, 80) + field(4, field(1, 1) + field(3, "web"))
    service = protobuf.decode(body("v1", "Service", field(2, field(1, port))))
    assert service["spec"]["ports"] == [{"port": 80, "targetPort": "web"}]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"k8s",
        protobuf.MAGIC + b"\xff" * 20,
        protobuf.MAGIC + b"\x0a\x7f",
        body("v1", "ConfigMap", b"\x0a\x7fx"),
        body("v1", "ConfigMap", b"\x08\x01"),
        body("v1", "ConfigMap", field(1, field(1, b"\xff"))),
        body("v1", "ConfigMap", b"\x0f"),
    ],
    ids=["empty", "short", "varint", "cut off", "cut off inside", "number for message", "not UTF-8", "wire type"],
)
def test_what_is_malformed_is_a_bad_request(data: bytes) -> None:
    with pytest.raises((BadRequest, UnsupportedMediaType)):
        protobuf.decode(data)


def test_a_kind_without_a_table_is_asked_for_as_json() -> None:
    with pytest.raises(UnsupportedMediaType, match="send application/json"):
        protobuf.decode(body("example.com/v1", "Widget", b""))
