"""What a path, an Accept header and query options mean: pure functions, without a server."""

import gzip
from types import SimpleNamespace
from typing import Any

import pytest

from hotvirt.kube.errors import BadRequest, Invalid, NotFound, UnsupportedMediaType
from hotvirt.server import discovery, negotiation, paths, queries, responses
from hotvirt.server.builtin import kinds
from hotvirt.server.describe import version_info
from hotvirt.server.negotiation import Form, NotAcceptable
from hotvirt.server.paths import Target


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1", Target(version="v1")),
        ("/api/v1/nodes", Target(version="v1", plural="nodes")),
        ("/api/v1/namespaces", Target(version="v1", plural="namespaces")),
        ("/api/v1/namespaces/a", Target(version="v1", plural="namespaces", name="a")),
        ("/api/v1/namespaces/a/status", Target(version="v1", plural="namespaces", name="a", subresource="status")),
        ("/api/v1/namespaces/a/pods", Target(version="v1", namespace="a", plural="pods")),
        ("/api/v1/namespaces/a/pods/p/log", Target(version="v1", namespace="a", plural="pods", name="p",
                                                  subresource="log")),
        ("/apis/g.io", Target(group="g.io")),
        ("/apis/g.io/v1/", Target(group="g.io", version="v1")),
        ("/apis/g.io/v1/namespaces/a/vms/x/portforward/22/tcp", Target(
            group="g.io", version="v1", namespace="a", plural="vms", name="x", subresource="portforward",
            rest=("22", "tcp"))),
        ("/apis/g.io/v1/things/system%3Aadmin", Target(group="g.io", version="v1", plural="things",
                                                       name="system:admin")),
        ("/healthz", None),
        ("/api", None),
        ("/", None),
    ],
)  # fmt: skip
def test_paths(path: str, target: Target | None) -> None:
    assert paths.parse(path) == target


@pytest.mark.parametrize("path", ["/api/v1/pods/..", "/api/v1/pods/%2E%2E", "/api/v1/a%2Fb", "/api/v1/%00", "/api/%ff"])
def test_paths_that_name_nothing(path: str) -> None:
    with pytest.raises(BadRequest):
        paths.parse(path)


def test_an_empty_part_is_not_found() -> None:
    with pytest.raises(NotFound):
        paths.parse("/api/v1/namespaces//pods")


@pytest.mark.parametrize(
    ("header", "form"),
    [
        (None, Form()),
        ("*/*", Form()),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Form("table")),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Form("table", "v1beta1")),
        ("application/vnd.kubernetes.protobuf,application/json", Form()),
        ("a/b;as=PartialObjectMetadata,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Form("partial")),
        ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
         Form("discovery", "v2")),
        ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json", Form()),
    ],
)  # fmt: skip
def test_forms(header: str | None, form: Form) -> None:
    assert negotiation.accepted(header) == form


def test_forms_that_are_not_served() -> None:
    with pytest.raises(NotAcceptable):
        negotiation.accepted("application/vnd.kubernetes.protobuf")
    with pytest.raises(UnsupportedMediaType):
        negotiation.decode(b"<a/>", "text/xml")


@pytest.mark.parametrize(
    ("query", "body", "wanted"),
    [
        ({}, {}, ("", None)),
        ({"propagationPolicy": "Foreground", "gracePeriodSeconds": "5"}, {}, ("Foreground", 5)),
        ({"gracePeriodSeconds": "5"}, {"gracePeriodSeconds": 0}, ("", 0)),
        ({"orphanDependents": "true"}, {}, ("Orphan", None)),
        ({}, {"orphanDependents": False}, ("Background", None)),
        ({}, {"gracePeriodSeconds": -1}, ("", 0)),
    ],
)
def test_delete_options(query: Any, body: Any, wanted: tuple[str, int | None]) -> None:
    options, _ = queries.delete_options(query, body)
    assert (options.propagation, options.grace) == wanted


@pytest.mark.parametrize(
    "ask",
    [
        lambda: queries.delete_options({"propagationPolicy": "Sideways"}, {}),
        lambda: queries.delete_options({"propagationPolicy": "Orphan"}, {"orphanDependents": True}),
        lambda: queries.number({"limit": "-1"}, "limit"),
        lambda: queries.number({"limit": "9" * 30}, "limit"),
        lambda: queries.dry_run({"dryRun": "Some"}),
        lambda: queries.field_validation({"fieldValidation": "Perhaps"}),
        lambda: queries.list_options({"resourceVersionMatch": "Exact"}),
        lambda: queries.list_options({"continue": "x", "resourceVersion": "5"}),
        lambda: queries.field_manager({"fieldManager": "x" * 200}, ""),
    ],
)
def test_options_that_cannot_be_used(ask: Any) -> None:
    with pytest.raises((BadRequest, Invalid)):
        ask()


def test_the_manager_is_the_program_unless_it_says_otherwise() -> None:
    assert queries.field_manager({}, "kubectl/v1.37 (linux)") == "kubectl"
    assert queries.field_manager({"fieldManager": "me"}, "kubectl/v1.37") == "me"


def test_the_old_and_the_new_discovery_name_the_same() -> None:
    served = kinds()
    old = {row["name"] for row in (discovery.resource_list("", "v1", served, ()) or {})["resources"]}
    new = discovery.aggregated_list(served, (), core=True)["items"][0]["versions"][0]["resources"]
    assert old == {row["resource"] for row in new} | {
        f"{row['resource']}/{sub['subresource']}" for row in new for sub in row.get("subresources", ())
    }
    assert discovery.resource_list("nothing.io", "v1", served, ()) is None


def test_the_version_can_be_read_by_clients() -> None:
    info = version_info("v1.36.0-hotvirt")
    assert (info["major"], info["minor"], info["gitVersion"]) == ("1", "36", "v1.36.0-hotvirt")


@pytest.mark.parametrize(
    ("remote", "accepts", "size", "packed"),
    [("10.0.0.9", "gzip, deflate", 200_000, True), ("10.0.0.9", "gzip", 1_000, False), ("10.0.0.9", "", 200_000, False),
     ("127.0.0.1", "gzip", 200_000, False)],
)  # fmt: skip
async def test_large_answers_are_packed_for_who_is_far_and_accepts_it(
    remote: str, accepts: str, size: int, packed: bool
) -> None:
    request: Any = SimpleNamespace(remote=remote, headers={"Accept-Encoding": accepts})
    whole = b"x" * size
    for body in (whole, responses.Pieces([b"x"] * size)):
        answer = await responses.compressed(responses.json_response(body), request)
        assert answer.headers.get("Content-Encoding") == ("gzip" if packed else None)
        if packed:
            assert isinstance(answer.body, bytes)
            assert gzip.decompress(answer.body) == whole
        else:
            assert answer.body is body or answer.body == whole
