"""What is known beside the objects when a change is judged."""

from msgspec import Struct


class Facts(Struct, frozen=True, kw_only=True):
    """`rollout_strategy` of the KubeVirt object. None or an empty set of claims: not asked."""

    rollout_strategy: str = "LiveUpdate"
    claims: frozenset[str] | None = None
    """Names of the claims in the VM's namespace."""
