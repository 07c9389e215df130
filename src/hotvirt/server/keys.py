"""What the store calls an object."""

from typing import NamedTuple


class Key(NamedTuple):
    """`resource` is `group/plural` (`/pods`, `kubevirt.io/virtualmachines`), the same for all versions of a kind;
    `namespace` is "" for what is cluster-wide."""

    resource: str
    namespace: str
    name: str
