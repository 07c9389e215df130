"""Which form of an answer a client asks for with Accept, and what it may send. Pure."""

from typing import Any, Literal

from msgspec import Struct

from hotvirt.kube.client import PatchKind
from hotvirt.kube.errors import ApiError, UnsupportedMediaType
from hotvirt.server import protobuf, strictjson

PATCHES: dict[str, PatchKind] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_YAML = ("application/yaml", "application/x-yaml", "text/yaml", "application/apply-patch+yaml")


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class Form(Struct, frozen=True):
    """`kind` is plain, table, partial (metadata alone), or discovery (the aggregated document)."""

    kind: Literal["plain", "table", "partial", "discovery"] = "plain"
    version: str = "v1"

    @property
    def content_type(self) -> str:
        if self.kind == "discovery":
            return f"application/json;g=apidiscovery.k8s.io;v={self.version};as=APIGroupDiscoveryList"
        return "application/json"


PLAIN = Form()


def accepted(header: str | None) -> Form:
    """The first form in the header that is served. NotAcceptable when none is."""
    if not header or header in ("*/*", "application/json"):
        return PLAIN
    for part in header.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        if media not in ("application/json", "application/*", "*/*"):
            continue
        given = dict(p.split("=", 1) for p in parameters if "=" in p)
        form = _form(given)
        if form is not None:
            return form
    raise NotAcceptable("only the following media types are accepted: application/json")


def _form(given: dict[str, str]) -> Form | None:
    kind, version = given.get("as"), given.get("v", "v1")
    if kind is None:
        return PLAIN
    if kind == "Table" and version in ("v1", "v1beta1"):
        return Form("table", version)
    if kind in ("PartialObjectMetadata", "PartialObjectMetadataList") and version == "v1":
        return Form("partial", version)
    if kind == "APIGroupDiscoveryList" and version == "v2":
        return Form("discovery", version)
    return None


def decode(body: bytes, content_type: str) -> tuple[Any, tuple[str, ...]]:
    """The document in a request's body, and which keys came twice in it."""
    media = content_type.partition(";")[0].strip().lower()
    if media == protobuf.MEDIA:
        return protobuf.decode(body), ()
    if media in _YAML and body.lstrip()[:1] not in (b"{", b"["):
        return strictjson.decode_yaml(body)
    if media and media not in ("application/json", *PATCHES, *_YAML):
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format ({media}) - accepted media types include: "
            f"application/json, application/yaml, {protobuf.MEDIA}"
        )
    return strictjson.decode(body)
