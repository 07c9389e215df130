"""What is known beside the objects when a change is judged. None always means: not asked, and then nothing is said.

What the guest's kernel can do is no part of this: the node agent publishes it in the instance's own conditions.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from hotvirt.api import configuration, gates
from hotvirt.api.attachments import Bridge
from hotvirt.preconditions.room import Demand

Document = Mapping[str, Any]


class Claim(Struct, frozen=True, kw_only=True):
    """A PersistentVolumeClaim as far as attaching it goes."""

    phase: str = "Bound"
    modes: tuple[str, ...] = ("ReadWriteOnce",)
    size: str = ""
    storage_class: str = ""
    waits: bool = False
    """Not bound, as its class binds a claim when somebody comes to use it."""


class Quota(Struct, frozen=True, kw_only=True):
    """One line of a ResourceQuota. `resource` is `memory` or `cpu`; bytes, or thousandths of a CPU."""

    name: str
    resource: str
    hard: int
    used: int


class Places(Struct, frozen=True, kw_only=True):
    """Where a device could go in the running machine: free PCIe ports, free targets of its SCSI controller, and what
    its node has of networks."""

    ports: int
    scsi: int
    network: str = ""
    """How its node connects guests: `bridge`, or `user`, which joins no other network. "" when that is not known."""
    bridges: Mapping[str, bool] = {}
    """The node's bridges -> whether they keep VLANs apart."""


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, and what the API says he may: `patch virtualmachines`, `get persistentvolumeclaims`, `create ...`."""

    name: str = ""
    may: Mapping[str, bool] = {}


PATCH_VM, READ_CLAIM, MAKE_CLAIM = (
    "patch virtualmachines", "get persistentvolumeclaims", "create persistentvolumeclaims",
)  # fmt: skip


class Facts(Struct, frozen=True, kw_only=True):
    """`rollout_strategy` to `memory_overcommit` are of the KubeVirt object; the rest of the VM's namespace and node, of
    its guest and of the caller."""

    rollout_strategy: str = "LiveUpdate"
    disabled_gates: frozenset[str] = frozenset()
    """Feature gates that are switched off by name; the ones live changes need are on otherwise."""
    listed_gates: frozenset[str] = frozenset()
    """Those that are switched on by name."""
    cpu_ratio: int = 10
    """How many vCPUs share one CPU of a node."""
    memory_overcommit: int = 100
    """Percent: how much memory guests have of what is asked of the node for it."""
    claims: Mapping[str, Claim] | None = None
    """The claims in the VM's namespace."""
    claim_users: Mapping[str, str] | None = None
    """Claim -> the other running machine that uses it."""
    attachments: frozenset[str] | None = None
    """The NetworkAttachmentDefinitions, as the VM's namespace calls them: `lan`, and `other/lan` of another."""
    knows_elsewhere: bool = True
    """Whether those of other namespaces could be read."""
    sized_by: Mapping[str, str] = {}
    """Field of the VM that its instancetype sets -> the instancetype's name. Empty where nobody is asked to edit it."""
    joins: Mapping[str, Bridge | str] = {}
    """NAMESPACE/NAME of a NetworkAttachmentDefinition -> the bridge that it names, or what is wrong with it."""
    room: Demand | None = None
    """What the VM's node has left."""
    quotas: tuple[Quota, ...] | None = None
    spare: int | None = None
    """Bytes the guest has available, as it says itself."""
    places: Places | None = None
    caller: Caller | None = None

    @classmethod
    def of_cluster(cls, kubevirt: Document | None) -> "Facts":
        """What the KubeVirt object says."""
        developer = configuration.developer(kubevirt)
        return cls(
            rollout_strategy=str(configuration.of(kubevirt).get("vmRolloutStrategy") or "LiveUpdate"),
            disabled_gates=gates.disabled(kubevirt),
            listed_gates=gates.listed(kubevirt),
            cpu_ratio=int(developer.get("cpuAllocationRatio") or 10),
            memory_overcommit=int(developer.get("memoryOvercommit") or 100),
        )
