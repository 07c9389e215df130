"""What the KubeVirt object may say. Pure.

Only what hotvirt acts on can be wrong. What has no effect is accepted with a warning, since a manifest written for
upstream should go through.
"""

from collections.abc import Iterator
from typing import Any

from hotvirt.api import configuration, gates, quantity, schemas, support
from hotvirt.api.faults import Fault, invalid, not_supported
from hotvirt.api.quantity import QuantityError
from hotvirt.api.validation import EVICTION_STRATEGIES, Checked, is_offered
from hotvirt.api.validation_sizes import is_qemu_name

Document = dict[str, Any]
PATH = "spec.configuration"
IN_UPSTREAMS_OWN = ("spec.imagePullPolicy",)
"""Set in the object that KubeVirt installs with, which nobody needs to be warned of."""
_AMD64 = "architectureConfiguration.amd64.machineType"
ROLLOUT_STRATEGIES = ("LiveUpdate", "Stage")


def kubevirt(obj: Document) -> Checked:
    spec = obj.get("spec") or {}
    if not schemas.fits(spec, "KubeVirtSpec"):
        return Checked()
    given, developer = configuration.of(obj), configuration.developer(obj)
    faults = (
        *_defaults(given),
        *_live_update(given),
        *_developer(developer),
        *_sizes(given),
    )
    told = gates.warnings(
        developer.get("featureGates") or (), developer.get("disabledFeatureGates") or (),
        f"{PATH}.developerConfiguration",
    )  # fmt: skip
    idle = support.idle(_without_empty(spec), "KubeVirtSpec", "spec")
    said = (f"{path} has no effect: {why}" for path, why in idle if path not in IN_UPSTREAMS_OWN)
    return Checked(faults, (*said, *told))


def _defaults(given: Document) -> Iterator[Fault]:
    rollout = given.get("vmRolloutStrategy")
    if rollout not in (None, "", *ROLLOUT_STRATEGIES):
        yield not_supported(f"{PATH}.vmRolloutStrategy", f"{rollout!r} is unknown: use LiveUpdate or Stage")
    ours = ((given.get("architectureConfiguration") or {}).get("amd64") or {}).get("machineType")
    for field, machine in (("machineType", given.get("machineType")), (_AMD64, ours)):
        if machine and not is_offered(machine):
            yield not_supported(f"{PATH}.{field}", f"{machine[:80]} machines are not offered: use q35 or pc")
    model = given.get("cpuModel")
    if model and not is_qemu_name(model):
        yield invalid(
            f"{PATH}.cpuModel", f"{model[:80]!r} is not a processor model: use host-model or a name of QEMU's"
        )
    eviction = given.get("evictionStrategy")
    if eviction not in (None, "", *EVICTION_STRATEGIES):
        yield invalid(f"{PATH}.evictionStrategy", f"{eviction!r} is unknown: use {', '.join(EVICTION_STRATEGIES)}")


def _sizes(given: Document) -> Iterator[Fault]:
    if (request := given.get("cpuRequest")) is not None:
        try:
            if quantity.parse(request) <= 0:
                yield invalid(f"{PATH}.cpuRequest", f"must be more than 0, not {request}: write it like 100m")
        except QuantityError as error:
            yield invalid(f"{PATH}.cpuRequest", str(error))
    binding = (given.get("network") or {}).get("defaultNetworkInterface")
    if binding not in (None, "", "masquerade", "bridge"):
        yield not_supported(
            f"{PATH}.network.defaultNetworkInterface", f"{binding!r} is not offered: use masquerade or bridge"
        )
    policy = (given.get("instancetype") or {}).get("referencePolicy")
    if policy not in (None, "", "reference", "expand", "expandAll"):
        yield not_supported(
            f"{PATH}.instancetype.referencePolicy", f"{policy!r} is unknown: use reference, expand or expandAll"
        )


def _live_update(given: Document) -> Iterator[Fault]:
    live, path = given.get("liveUpdateConfiguration") or {}, f"{PATH}.liveUpdateConfiguration"
    for field in ("maxHotplugRatio", "maxCpuSockets"):
        if (value := live.get(field)) is not None and value < 1:
            yield invalid(f"{path}.{field}", f"must be at least 1, not {value}")
    if (most := live.get("maxGuest")) is not None:
        try:
            if quantity.parse_bytes(most) <= 0:
                yield invalid(f"{path}.maxGuest", f"must be more than 0, not {most}: write it like 16Gi")
        except QuantityError as error:
            yield invalid(f"{path}.maxGuest", str(error))


def _developer(developer: Document) -> Iterator[Fault]:
    path = f"{PATH}.developerConfiguration"
    both = set(developer.get("featureGates") or ()) & set(developer.get("disabledFeatureGates") or ())
    for gate in sorted(both):
        yield invalid(f"{path}.featureGates", f"{gate} is both on and off: keep it in one of the two lists")
    for field in ("memoryOvercommit", "cpuAllocationRatio"):
        # 0 reads as not said, as upstream.
        if (value := developer.get(field)) is not None and value < 0:
            yield invalid(f"{path}.{field}", f"must not be negative: {value}")


def _without_empty(value: Any) -> Any:
    """Empty objects of upstream's own manifest say nothing."""
    if not isinstance(value, dict):
        return value
    inner = {key: _without_empty(each) for key, each in value.items()}
    return {key: each for key, each in inner.items() if each not in ({}, "")}
