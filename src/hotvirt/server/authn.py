"""Who asks: client certificate, ServiceAccount token, or nobody; and whom they ask to act for (impersonation)."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from hotvirt.kube.admission import User
from hotvirt.kube.errors import BadRequest, Unauthorized
from hotvirt.server.access import Access, Attributes
from hotvirt.server.tokens import Tokens

ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
AUTHENTICATED = "system:authenticated"
_EXTRA = "impersonate-extra-"


class Authenticator:
    """Identities from certificates are kept per connection by aiohttp's transport; tokens are checked each time, since
    they may have died meanwhile."""

    def __init__(self, tokens: Tokens, access: Access) -> None:
        self._tokens, self._access = tokens, access

    def user_of(self, request: web.BaseRequest) -> User:
        """The user to act as. Unauthorized for bad credentials, Forbidden for impersonation that is not allowed."""
        user = self._authenticate(request)
        if "Impersonate-User" in request.headers:
            return self._impersonate(user, request.headers)
        if any(name.lower().startswith("impersonate-") for name in request.headers):
            raise BadRequest("Impersonate-User is missing: groups, uid and extra go with a user")
        return user

    def _authenticate(self, request: web.BaseRequest) -> User:
        header = request.headers.get("Authorization", "")
        kind, _, token = header.partition(" ")
        if kind.lower() == "bearer" and token.strip():
            return self._tokens.user_of(token.strip())
        if ":" not in header and (token := _websocket_token(request)):
            return self._tokens.user_of(token)
        peer = request.get_extra_info("peercert")
        return user_of_certificate(peer) if peer else ANONYMOUS

    def _impersonate(self, user: User, headers: Mapping[str, str]) -> User:
        name = headers["Impersonate-User"]
        groups: list[str] = getattr(headers, "getall", lambda *_: [])("Impersonate-Group", [])
        uid = headers.get("Impersonate-Uid", "")
        extra: dict[str, list[str]] = {}
        for header, value in headers.items():
            if header.lower().startswith(_EXTRA):
                extra.setdefault(unquote(header[len(_EXTRA) :].lower()), []).append(value)
        self._require(user, "users", name)
        for group in groups:
            self._require(user, "groups", group)
        if uid:
            self._require(user, "uids", uid, group="authentication.k8s.io")
        for key, values in extra.items():
            for value in values:
                self._require(user, "userextras", value, group="authentication.k8s.io", sub=key)
        parts = name.split(":")
        if not groups and parts[:2] == ["system", "serviceaccount"] and len(parts) == 4:
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}"]
        if name != ANONYMOUS.name and AUTHENTICATED not in groups:
            groups = [*groups, AUTHENTICATED]
        return User(name, tuple(groups), uid, extra)

    def _require(self, user: User, resource: str, name: str, *, group: str = "", sub: str = "") -> None:
        namespace = ""
        parts = name.split(":")
        if resource == "users" and parts[:2] == ["system", "serviceaccount"] and len(parts) == 4:
            resource, namespace, name = "serviceaccounts", parts[2], parts[3]
        self._access.require(
            user,
            Attributes(
                verb="impersonate", group=group, version="v1", resource=resource, subresource=sub,
                namespace=namespace, name=name,
            ),
        )  # fmt: skip


def user_of_certificate(peer: Mapping[str, Any]) -> User:
    """CN is the name, each O a group, as Kubernetes reads them. `peer` is what `ssl` makes of a verified one."""
    found: dict[str, list[str]] = {}
    for part in peer.get("subject") or ():
        for key, value in part:
            found.setdefault(key, []).append(value)
    names = found.get("commonName")
    if not names:
        raise Unauthorized("the client certificate has no common name (CN): it names nobody")
    return User(names[-1], (*found.get("organizationName", ()), AUTHENTICATED))


def _websocket_token(request: web.BaseRequest) -> str:
    """Browsers can't set Authorization on a WebSocket: the token comes as a subprotocol."""
    import base64
    import binascii

    prefix = "base64url.bearer.authorization.k8s.io."
    for offered in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        text = offered.strip()
        if text.startswith(prefix):
            coded = text.removeprefix(prefix)
            try:
                return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""
    return ""
