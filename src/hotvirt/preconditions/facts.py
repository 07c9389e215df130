"""What is known beside the objects when a change is judged. None always means: not asked."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

Document = Mapping[str, Any]


class Facts(Struct, frozen=True, kw_only=True):
    """`rollout_strategy` and `disabled_gates` of the KubeVirt object; the rest of the VM's namespace and its guest."""

    rollout_strategy: str = "LiveUpdate"
    disabled_gates: frozenset[str] = frozenset()
    """Feature gates that are switched off by name; the ones live changes need are on otherwise."""
    claims: frozenset[str] | None = None
    """Names of the claims in the VM's namespace."""
    claim_users: Mapping[str, str] | None = None
    """Claim -> the running machine that uses it."""
    memory_hotplug: bool | None = None
    """Whether the guest's kernel can take up memory (has the driver of virtio-mem), as asked of the guest."""
    cpu_hotplug: bool | None = None
    """Whether the guest's kernel can take up CPUs, as asked of the guest."""

    @classmethod
    def of_cluster(cls, kubevirt: Document | None) -> "Facts":
        """What the KubeVirt object says."""
        configuration = ((kubevirt or {}).get("spec") or {}).get("configuration") or {}
        developer = configuration.get("developerConfiguration") or {}
        return cls(
            rollout_strategy=str(configuration.get("vmRolloutStrategy") or "LiveUpdate"),
            disabled_gates=frozenset(developer.get("disabledFeatureGates") or ()),
        )
