"""What the API server asks of admission, in AdmissionReview's words (admission.k8s.io/v1).

`server/` calls plug-ins that implement `Admission`; `webhooks/` implements them for KubeVirt's kinds. Plug-ins are
pure towards the request: they never write, and are called again on dry runs.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

from msgspec import Struct, field

from hotvirt.kube.errors import Cause
from hotvirt.kube.resources import Resource


class User(Struct, frozen=True):
    """Who asks, as authenticated (or impersonated): authentication.k8s.io/v1 UserInfo."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)


class AdmissionRequest(Struct, frozen=True):
    """One write about to be stored. `obj` is None on DELETE, `old` is None on CREATE. `obj` has been defaulted and
    pruned by its schema; `options` are the request's query options (dryRun, fieldManager, ...)."""

    operation: Literal["CREATE", "UPDATE", "DELETE"]
    resource: Resource
    subresource: str
    namespace: str
    name: str
    user: User
    obj: dict[str, Any] | None
    old: dict[str, Any] | None
    dry_run: bool = False


Read = Callable[[Resource, str, str], dict[str, Any] | None]
"""(resource, name, namespace) -> what is stored now, at once; None for what is not there, or is of no known kind."""


class Verdict(Struct, frozen=True):
    """`causes` non-empty: refused as 422 with all of them. `denied` non-empty: refused as 403 with that sentence
    (for what is not a fault of a field). `warnings` go out as Warning headers, also when admitted. `busy` non-empty:
    not now, 429; for evictions (`obj` is the Eviction, `old` the pod)."""

    causes: tuple[Cause, ...] = ()
    denied: str = ""
    warnings: tuple[str, ...] = ()
    busy: str = ""


class Admission(Protocol):
    """Runs for the resources in `resources` (matched by group and plural)."""

    resources: tuple[Resource, ...]

    def mutate(self, request: AdmissionRequest) -> dict[str, Any] | None:
        """The object with defaults set (a new dict), or None for no change. Parts of it may be those of the stored
        object: replace what changes, write into nothing."""
        ...

    async def validate(self, request: AdmissionRequest) -> Verdict: ...


class OnlyJudges:
    """The half of an `Admission` that sets no defaults."""

    def mutate(self, request: AdmissionRequest) -> dict[str, Any] | None:  # noqa: ARG002
        return None
