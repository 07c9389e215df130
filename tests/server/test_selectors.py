"""Label and field selectors: Kubernetes' grammar, the meaning of absent labels, and readable refusals."""

import pytest

from hotvirt.kube import errors
from hotvirt.server import selectors

LABELS = {"app": "web", "tier": "front", "example.com/n": "7", "empty": ""}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier=front", True),
        ("app=db", False),
        ("app!=web", False),
        ("app!=db", True),
        ("gone!=x", True),
        ("app", True),
        ("gone", False),
        ("!gone", True),
        ("! gone", True),
        ("!app", False),
        ("app in (web,db)", True),
        ("app in (db)", False),
        ("gone in (x)", False),
        ("app notin (web)", False),
        ("gone notin (x)", True),
        ("app in (web),tier notin (back),!gone", True),
        ("example.com/n>6", True),
        ("example.com/n < 6", False),
        ("app>1", False),
        ("gone<1", False),
        ("empty=", True),
        ("empty in ()", True),
        ("app=,tier=front", False),
    ],
)
def test_labels(text: str, fits: bool) -> None:
    assert selectors.parse_labels(text).matches(LABELS) is fits


@pytest.mark.parametrize(
    "text",
    ["=", "a b", "a in", "a in x", "a in (x", "a=b,", "a==b==c", "!", "a>x", "a=_b", "-a=b", "A/b/c=d", "a=b)", ",a"],
)
def test_label_refusals_quote_the_selector(text: str) -> None:
    with pytest.raises(errors.BadRequest, match="unable to parse requirement") as caught:
        selectors.parse_labels(text)
    assert repr(text) in caught.value.message


def test_label_selector_documents() -> None:
    found = selectors.from_object(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front"]},
                {"key": "gone", "operator": "DoesNotExist"},
                {"key": "gone", "operator": "NotIn", "values": ["x"]},
                {"key": "app", "operator": "Exists"},
            ],
        }
    )
    assert found.matches(LABELS)
    assert selectors.from_object(None).matches({})
    with pytest.raises(errors.BadRequest, match="use one of In, NotIn"):
        selectors.from_object({"matchExpressions": [{"key": "a", "operator": "Like"}]})


DOC = {"metadata": {"name": "web"}, "spec": {"nodeName": "n1", "paused": False, "n": 3}, "type": "a,b=c"}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("metadata.name=web", True),
        ("metadata.name==web,spec.nodeName!=n2", True),
        ("metadata.name!=web", False),
        ("spec.nodeName=", False),
        ("status.phase=", True),
        ("spec.paused=false", True),
        ("spec.n=3", True),
        ("type=a\\,b\\=c", True),
    ],
)
def test_fields(text: str, fits: bool) -> None:
    assert selectors.parse_fields(text).matches(DOC) is fits


@pytest.mark.parametrize("text", ["metadata.name", "a=b=c", "a=\\x"])
def test_field_refusals(text: str) -> None:
    with pytest.raises(errors.BadRequest, match=r"invalid (field )?selector"):
        selectors.parse_fields(text)


def test_a_store_can_use_the_requirements() -> None:
    found = selectors.parse_fields("metadata.namespace=x,metadata.name!=y")
    assert found.equal_to("metadata.namespace") == "x"
    assert found.equal_to("metadata.name") is None
    with pytest.raises(errors.BadRequest, match=r'"metadata\.name" is not a known .* Pod: use one of a'):
        found.check({"metadata.namespace", "a"}, "Pod")
