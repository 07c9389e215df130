"""What a URL path of the Kubernetes API names. Pure."""

from urllib.parse import unquote

from msgspec import Struct

from hotvirt.kube.errors import BadRequest, NotFound

_OF_NAMESPACES = ("status", "finalize")


class Target(Struct, frozen=True, kw_only=True):
    """`/apis/G/V/namespaces/NS/PLURAL/NAME/SUBRESOURCE/REST...`. Without a plural it is discovery of what is there;
    without a version too, of the group."""

    group: str = ""
    version: str = ""
    namespace: str = ""
    plural: str = ""
    name: str = ""
    subresource: str = ""
    rest: tuple[str, ...] = ()


def parse(path: str) -> Target | None:
    """None for what is not below /api/ or /apis/."""
    parts = _segments(path)
    if parts[:1] == ["api"] and len(parts) > 1:
        return _resource("", parts[1], parts[2:])
    if parts[:1] == ["apis"] and len(parts) > 1:
        return _resource(parts[1], parts[2] if len(parts) > 2 else "", parts[3:])
    return None


def _segments(path: str) -> list[str]:
    segments = [unquote(part, errors="strict") for part in path.strip("/").split("/")] if _is_text(path) else []
    for segment in segments:
        if segment in (".", "..") or "/" in segment or "\0" in segment:
            raise BadRequest(f"the path has a part that names nothing: {segment!r}")
    return segments


def _is_text(path: str) -> bool:
    try:
        unquote(path, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("the path is not valid UTF-8") from error
    return True


def _resource(group: str, version: str, parts: list[str]) -> Target:
    if any(not part for part in parts):
        raise NotFound("the server could not find the requested resource")
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) > 2 and (group or parts[2] not in _OF_NAMESPACES):
        namespace, parts = parts[1], parts[2:]
    plural, name, subresource, *rest = [*parts, "", "", ""][: max(len(parts), 3)]
    return Target(
        group=group, version=version, namespace=namespace, plural=plural, name=name, subresource=subresource,
        rest=tuple(rest),
    )  # fmt: skip
