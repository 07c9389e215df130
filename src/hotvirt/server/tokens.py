"""ServiceAccount tokens: issued by TokenRequest, checked on each request that brings one.

JSON Web Tokens signed with a secret of this home (HS256): only this server has to read them, and the standard library
can. A token dies with its account (its uid), with the object it is bound to, and by its own time.
"""

import base64
import binascii
import hashlib
import hmac
import math
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from hotvirt.kube.admission import User
from hotvirt.kube.errors import BadRequest, Cause, Invalid, NotFound, Unauthorized
from hotvirt.server.calls import Call
from hotvirt.server.keys import Key
from hotvirt.server.objectmeta import timestamp
from hotvirt.server.store import Store

Document = dict[str, Any]
ISSUER = "https://kubernetes.default.svc"
AUDIENCES = (ISSUER, ISSUER + ".cluster.local")
SHORTEST, USUAL, LONGEST = 600, 3600, 365 * 24 * 3600
_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()


class Tokens:
    def __init__(self, store: Store, secret: bytes, now: Callable[[], datetime]) -> None:
        self._store, self._secret, self._now = store, secret, now

    async def issue(self, call: Call, request: Document) -> Document:
        """serviceaccounts/token: the TokenRequest with its status."""
        entry = self._store.get(call.key)
        if entry is None:
            raise call.not_found()
        account = self._store.doc(entry)["metadata"]
        spec = request.get("spec") or {}
        seconds = spec.get("expirationSeconds") or USUAL
        if not isinstance(seconds, int) or seconds < SHORTEST:
            why = f"Invalid value: {seconds}: may not specify a duration less than {SHORTEST // 60} minutes"
            cause = Cause("FieldValueInvalid", why, "spec.expirationSeconds")
            text = f'TokenRequest.authentication.k8s.io "" is invalid: {cause.field}: {why}'
            raise Invalid(text, causes=[cause], group="authentication.k8s.io", kind="TokenRequest")
        if seconds > LONGEST:
            call.warnings.append(f"requested expiration of {seconds} seconds shortened to {LONGEST} seconds")
            seconds = LONGEST
        audiences = spec.get("audiences") or list(AUDIENCES)
        now, end = self._now(), self._now() + timedelta(seconds=seconds)
        bound: Document = {"namespace": call.namespace}
        bound["serviceaccount"] = {"name": call.name, "uid": account["uid"]}
        if ref := spec.get("boundObjectRef"):
            bound |= self._bound(call, ref)
        claims = {
            "aud": audiences, "exp": int(end.timestamp()), "iat": int(now.timestamp()), "iss": ISSUER,
            "jti": secrets.token_hex(16), "kubernetes.io": bound, "nbf": int(now.timestamp()),
            "sub": f"system:serviceaccount:{call.namespace}:{call.name}",
        }  # fmt: skip
        status = {"token": self._sign(claims), "expirationTimestamp": timestamp(end)}
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": call.name, "namespace": call.namespace, "creationTimestamp": timestamp(now)},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": status,
        }

    def lasting(self, namespace: str, name: str, uid: str, *, secret: Document) -> str:
        """A token of an account that is good for as long as the Secret that holds it (its metadata) is there."""
        now = int(self._now().timestamp())
        bound = {
            "namespace": namespace, "serviceaccount": {"name": name, "uid": uid},
            "secret": {"name": secret["name"], "uid": secret["uid"]},
        }  # fmt: skip
        claims = {
            "aud": list(AUDIENCES), "iat": now, "iss": ISSUER, "jti": secrets.token_hex(16), "kubernetes.io": bound,
            "nbf": now, "sub": f"system:serviceaccount:{namespace}:{name}",
        }  # fmt: skip
        return self._sign(claims)

    def user_of(self, token: str, audiences: tuple[str, ...] = AUDIENCES) -> User:
        """Raises Unauthorized when the token is not (or no longer) good."""
        claims = self._verify(token)
        now = self._now().timestamp()
        named = claims.get("aud")
        if not isinstance(named, list) or not set(audiences) & set(named):
            raise Unauthorized("the token is for another audience")
        if not claims.get("nbf", 0) - 60 <= now < claims.get("exp", math.inf):
            raise Unauthorized("the token has expired: ask for a new one (kubectl create token)")
        bound = claims.get("kubernetes.io") or {}
        namespace, account = bound.get("namespace") or "", bound.get("serviceaccount") or {}
        name, uid = account.get("name") or "", account.get("uid")
        entry = self._store.get(Key("/serviceaccounts", namespace, name))
        if entry is None or self._store.doc(entry)["metadata"]["uid"] != uid:
            raise Unauthorized(f"the token's ServiceAccount {namespace}/{name} is gone")
        for kind in ("pod", "secret"):
            if (ref := bound.get(kind)) and not self._exists(f"/{kind}s", namespace, ref):
                raise Unauthorized(f"the {kind} that the token is bound to is gone")
        return service_account(namespace, name, uid=str(uid), pod=bound.get("pod"))

    def _bound(self, call: Call, ref: Document) -> Document:
        kind = str(ref.get("kind") or "")
        if kind not in ("Pod", "Secret"):
            raise BadRequest("spec.boundObjectRef.kind: use Pod or Secret")
        entry = self._store.get(Key(f"/{kind.lower()}s", call.namespace, str(ref.get("name"))))
        if entry is None:
            raise NotFound(f"spec.boundObjectRef: {kind} {ref.get('name')} not found in {call.namespace}")
        uid = self._store.doc(entry)["metadata"]["uid"]
        if ref.get("uid") not in (None, "", uid):
            raise BadRequest(f"spec.boundObjectRef.uid: the {kind} has uid {uid}")
        return {kind.lower(): {"name": ref["name"], "uid": uid}}

    def _exists(self, store: str, namespace: str, ref: Document) -> bool:
        entry = self._store.get(Key(store, namespace, str(ref.get("name"))))
        return entry is not None and self._store.doc(entry)["metadata"]["uid"] == ref.get("uid")

    def _sign(self, claims: Document) -> str:
        body = base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=").decode()
        return f"{_HEADER}.{body}.{self._signature(f'{_HEADER}.{body}')}"

    def _signature(self, text: str) -> str:
        mac = hmac.new(self._secret, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()

    def _verify(self, token: str) -> Document:
        """Looks at nothing in the token before its signature holds; the algorithm is ours, never the token's."""
        text, _, signature = token.rpartition(".")
        if not text.isascii() or not hmac.compare_digest(signature.encode(), self._signature(text).encode()):
            raise Unauthorized("the token is not one of this server")
        body = text.partition(".")[2]
        try:
            claims = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
            raise Unauthorized("the token can't be read") from error
        return claims if isinstance(claims, dict) else {}


def service_account(namespace: str, name: str, *, uid: str = "", pod: Document | None = None) -> User:
    extra = {}
    if pod:
        extra = {
            "authentication.kubernetes.io/pod-name": [str(pod.get("name"))],
            "authentication.kubernetes.io/pod-uid": [str(pod.get("uid"))],
        }
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra)
