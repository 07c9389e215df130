"""Bodies: what decodes, what is refused with which sentence, and which keys occur twice."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.kube import errors
from hotvirt.server import strictjson


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b'{"a":1}', ()),
        (b'{"a":1,"a":2}', ("a",)),
        (b'{"spec" : {"running": true, "running": false}}', ("spec.running",)),
        (b'{"l":[{"n":1},{"n":1,"n":2}]}', ("l[1].n",)),
        (b'{"a":"\\":","b":":x"}', ()),
        (b'{"a":{"x":1,"x":1},"a":{"y":1,"y":1}}', ("a.x", "a", "a.y")),
    ],
)
def test_duplicate_keys(body: bytes, paths: tuple[str, ...]) -> None:
    document, found = strictjson.decode(body)
    assert document == json.loads(body)
    assert found == paths


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":Infinity}', "not valid JSON"),
        (b'{"a":1e999}', "not valid JSON"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"\xc3\x28":1}', "UTF-8"),
        (b'"\\ud800"', "not valid JSON"),
        (b'{"a":1} {}', "not valid JSON"),
        (b"[" * 200 + b"]" * 200, "deep"),
        (b"[" * 100_000, "deep"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "deep"),
    ],
)
def test_refusals(body: bytes, word: str) -> None:
    with pytest.raises(errors.BadRequest, match=word):
        strictjson.decode(body)


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(_values, st.sampled_from([None, 1]), st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
def test_whatever_json_writes_is_read_back_without_duplicates(
    value: object, indent: int | None, separators: tuple[str, str]
) -> None:
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False).encode()
    assert strictjson.decode(text) == (value, ())


@settings(max_examples=60, deadline=None)
@given(_values, st.text(max_size=5), st.booleans())
def test_a_doubled_key_is_always_found(value: object, key: str, spaced: bool) -> None:
    colon = " : " if spaced else ":"
    pair = json.dumps(key) + colon + json.dumps(value)
    text = f'{{"x":":",{pair},"y":{{{pair},{pair}}}}}'.encode()
    assert f"y.{key}" in strictjson.decode(text)[1]


def test_yaml_is_read_as_its_json_would_be() -> None:
    text = b"""
metadata: {name: web, annotations: {when: 2026-01-02, "quoted": "yes"}}
spec:
  running: yes
  n: 3
  hex: 0x10
  mode: 0644
  half: 0.5
  none: ~
  list: [a, "1"]
  running: no
"""
    assert strictjson.decode_yaml(text) == (
        {
            "metadata": {"name": "web", "annotations": {"when": "2026-01-02", "quoted": "yes"}},
            "spec": {
                "running": False, "n": 3, "hex": 16, "mode": 420, "half": 0.5, "none": None, "list": ["a", "1"],
            },
        },
        ("spec.running",),
    )  # fmt: skip
    assert strictjson.decode_yaml(b' {"a":1,"a":2}') == ({"a": 2}, ("a",))


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "empty"),
        (b"a: &x [1]\nb: *x\n", "alias"),
        (b"a: [", "not valid YAML"),
        (b"a: b: c", "not valid YAML"),
        (b"a: .nan", "finite|read the number"),
        (b"a: \xff", "UTF-8"),
        (b"a: " + b"[" * 200 + b"]" * 200, "deep"),
        (b"--- {}\n--- {}\n", "not valid YAML"),
    ],
)
def test_yaml_refusals(body: bytes, word: str) -> None:
    with pytest.raises(errors.BadRequest, match=word):
        strictjson.decode_yaml(body)
