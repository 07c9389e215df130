"""One request to the verbs, however it came in (HTTP or in process)."""

from typing import Any, Literal, TypedDict

from msgspec import Struct, field

from hotvirt.kube.admission import User
from hotvirt.kube.errors import AlreadyExists, Cause, Conflict, Invalid, NotFound
from hotvirt.server.keys import Key
from hotvirt.server.registry import Served

Propagation = Literal["", "Background", "Foreground", "Orphan"]
Document = dict[str, Any]


class About(TypedDict):
    """The details of a Status that name the object."""

    group: str
    kind: str
    name: str


class Call(Struct, kw_only=True):
    """What is asked for, of what, by whom. `warnings` is filled on the way, for Warning headers."""

    served: Served
    user: User
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    dry_run: bool = False
    field_manager: str = ""
    is_apply: bool = False
    field_validation: Literal["Strict", "Warn", "Ignore"] = "Warn"
    duplicate_fields: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return Key(self.served.store, self.namespace, self.name)

    def not_found(self, name: str = "") -> NotFound:
        name = name or self.name
        return NotFound(f'{self.served.qualified} "{name}" not found', **self.about(name))

    def already_exists(self, name: str) -> AlreadyExists:
        return AlreadyExists(f'{self.served.qualified} "{name}" already exists', **self.about(name))

    def conflict(self, why: str) -> Conflict:
        text = f'Operation cannot be fulfilled on {self.served.qualified} "{self.name}": {why}'
        return Conflict(text, **self.about(self.name))

    def about(self, name: str) -> About:
        return {"group": self.served.resource.group, "kind": self.served.resource.plural, "name": name}


class DeleteOptions(Struct, frozen=True, kw_only=True):
    """`propagation` "" leaves what an earlier request chose; without one that is Background."""

    grace: int | None = None
    propagation: Propagation = ""
    uid: str = ""
    resource_version: str = ""


class ListOptions(Struct, frozen=True, kw_only=True):
    """`version` and `match` as in the query: resourceVersion and resourceVersionMatch."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""
    version: str = ""
    match: str = ""


def option_fault(options: str, field: str, reason: str, message: str) -> Invalid:
    """An option that can't be used, told as Kubernetes tells it: of `options`, CreateOptions say."""
    text = f'{options}.meta.k8s.io "" is invalid: {field}: {message}'
    return Invalid(text, causes=[Cause(reason, message, field)], group="meta.k8s.io", kind=options)
