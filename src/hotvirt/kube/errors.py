"""What an API call can answer instead of an object.

    ApiError                  any Kubernetes Status with status=Failure
    ├── BadRequest     400
    ├── Unauthorized   401
    ├── Forbidden      403
    ├── NotFound       404
    ├── MethodNotAllowed 405
    ├── AlreadyExists  409  reason AlreadyExists
    ├── Conflict       409  reason Conflict: resourceVersion, uid or field-manager conflict
    ├── Gone           410  the asked resourceVersion is compacted: list again
    ├── TooLarge       413
    ├── UnsupportedMediaType 415
    ├── Invalid        422  `causes` holds every fault, not just the first
    ├── TooManyRequests 429
    ├── InternalError  500
    ├── NotImplementedHere 501 reason NotImplemented: of the API, and not built or not possible here
    ├── Timeout        504  also a resourceVersion that the server has not reached: ask again
    └── StorageFull    507

The server raises these and renders them; clients parse a Status back into them. `Connection` problems of the remote
client are not ApiErrors: they are `Unreachable`.
"""

from typing import Any

from msgspec import Struct


class Cause(Struct, frozen=True):
    """One fault of an Invalid object: `reason` is a Kubernetes CauseType such as FieldValueInvalid,
    `field` a path such as `spec.template.spec.domain.cpu.sockets`, `message` the sentence with the mend."""

    reason: str
    message: str
    field: str = ""


class Unreachable(Exception):
    """The server did not answer: refused, timed out, TLS failure. The text says which and to where."""


class ApiError(Exception):
    """A Kubernetes `Status` failure. `code` is the HTTP status, `reason` the machine-readable word."""

    code = 500
    reason = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        causes: tuple[Cause, ...] | list[Cause] = (),
        group: str = "",
        kind: str = "",
        name: str = "",
        uid: str = "",
        retry_after: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.causes = tuple(causes)
        self.group, self.kind, self.name, self.uid, self.retry_after = group, kind, name, uid, retry_after

    def to_status(self) -> dict[str, Any]:
        """The `v1.Status` document that goes over the wire."""
        details: dict[str, Any] = {}
        for key in ("name", "group", "kind", "uid"):
            if value := getattr(self, key):
                details[key] = value
        if self.causes:
            details["causes"] = [
                {"reason": c.reason, "message": c.message, **({"field": c.field} if c.field else {})}
                for c in self.causes
            ]
        if self.retry_after:
            details["retryAfterSeconds"] = self.retry_after
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if details:
            status["details"] = details
        return status


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    code, reason = 409, "Conflict"


class Gone(ApiError):
    code, reason = 410, "Expired"


class TooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class NotImplementedHere(ApiError):
    code, reason = 501, "NotImplemented"


class Timeout(ApiError):
    code, reason = 504, "Timeout"


class StorageFull(ApiError):
    code, reason = 507, "InsufficientStorage"


_KINDS: tuple[type[ApiError], ...] = (
    BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, AlreadyExists, Conflict, Gone, TooLarge,
    UnsupportedMediaType, Invalid, TooManyRequests, InternalError, NotImplementedHere, Timeout, StorageFull,
)  # fmt: skip
_BY_REASON = {kind.reason: kind for kind in _KINDS} | {"Gone": Gone}
_BY_CODE = {kind.code: kind for kind in reversed(_KINDS)} | {409: Conflict}


def from_status(status: dict[str, Any], http_code: int) -> ApiError:
    """Parse a Status document (or anything a proxy put in its place) into the matching error."""
    code = int(status.get("code") or http_code)
    reason = str(status.get("reason") or "")
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code) or ApiError
    details = status.get("details") or {}
    error = kind(
        str(status.get("message") or f"HTTP {code}"),
        causes=[
            Cause(str(c.get("reason", "")), str(c.get("message", "")), str(c.get("field", "")))
            for c in details.get("causes") or ()
        ],
        group=str(details.get("group", "")),
        kind=str(details.get("kind", "")),
        name=str(details.get("name", "")),
        uid=str(details.get("uid", "")),
        retry_after=int(details.get("retryAfterSeconds") or 0),
    )
    error.code = code
    if reason:
        error.reason = reason
    return error
