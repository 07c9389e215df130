"""KubeVirt's feature gates: what is known of each, and what a list of them deserves to be told. Pure.

Alpha gates are off unless listed, beta gates are on unless disabled, general ones are always on. Names and states are
facts of KubeVirt 1.9. Whether hotvirt has what a gate stands for is another matter: a field says so itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from hotvirt.api import configuration

State = Literal["alpha", "beta", "general", "deprecated", "discontinued"]

_NAMES: dict[State, str] = {
    "beta": """
        ImageVolume Snapshot WorkloadEncryptionSEV KubevirtSeccompProfile NodeRestriction GPUsWithDRA HostDevicesWithDRA
        DecentralizedLiveMigration DeclarativeHotplugVolumes PasstBinding PodSecondaryInterfaceNamingUpgrade
        ExternalNetResourceInjection RebootPolicy Template OptOutRoleAggregation""",
    "alpha": """
        CPUManager ExperimentalIgnitionSupport HypervStrictCheck Sidecar HostDevices HostDisk DownwardMetrics Root
        WorkloadEncryptionTDX VSOCK AlignCPUs EnableVirtioFsStorageVolumes PCINUMAAwareTopology NetworkDevicesWithDRA
        ObjectGraph UtilityVolumes ConfigurableHypervisor IncrementalBackup ContainerPathVolumes ReservedOverheadMemlock
        VGPULiveMigration VMStatsCollector OCIExport Plugins GraceIOVirtualization IOMMUFD FirmwareAutoSelection
        MigrationStallDetection MigrationDowntimeTuning CrossArchitectureVirtualization PortRangesSpec""",
    "general": """
        LiveMigration SRIOVLiveMigration NonRoot PSA CPUNodeDiscovery NUMA GPU CommonInstancetypesDeploymentGate
        HotplugNICs BochsDisplayForEFIGuests VMLiveUpdateFeatures NetworkBindingPlugins DynamicPodInterfaceNaming
        VolumesUpdateStrategy VolumeMigration DisableCustomSELinuxPolicy AutoResourceLimitsGate ClusterProfiler
        VMPersistentState InstancetypeReferencePolicy EnableVirtioFsConfigVolumes ExpandDisks PanicDevices
        SecureExecution VMExport PersistentReservation LiveUpdateNADRef VideoConfig MigrationPriorityQueue
        VmiMemoryOverheadReport LibvirtHooksServerAndClient""",
    "deprecated": "DockerSELinuxMCSWorkaround MultiArchitecture DisableMDEVConfiguration HotplugVolumes",
    "discontinued": "ExperimentalVirtiofsSupport Passt Macvtap PasstIPStackMigration",
}
GATES: dict[str, State] = {name: state for state, names in _NAMES.items() for name in names.split()}
ALSO_KNOWN_AS = {
    "LiveUpdate": "VMLiveUpdateFeatures",
    "LiveResourceUpdate": "VMLiveUpdateFeatures",
    "CPUHotplug": "VMLiveUpdateFeatures",
    "HotPlugVolumes": "HotplugVolumes",
}
"""Names people know from elsewhere, each with KubeVirt's own."""


HOST_DISK = "HostDisk"
CLAIMS_AS_FILESYSTEMS = "EnableVirtioFsStorageVolumes"
TEMPORARY_VOLUMES = "HotplugVolumes"
"""The gates that are off here unless they are listed."""
FIELD = "spec.configuration.developerConfiguration.featureGates of the KubeVirt object"


def listed(kubevirt: Mapping[str, Any] | None) -> frozenset[str]:
    """The gates that a KubeVirt object turns on by name, and not off as well; each by KubeVirt's own name."""
    return _named(kubevirt, "featureGates") - _named(kubevirt, "disabledFeatureGates")


def disabled(kubevirt: Mapping[str, Any] | None) -> frozenset[str]:
    """Those that it turns off, by the names that stand there."""
    return frozenset(configuration.developer(kubevirt).get("disabledFeatureGates") or ())


def _named(kubevirt: Mapping[str, Any] | None, field: str) -> frozenset[str]:
    given = configuration.developer(kubevirt).get(field) or ()
    return frozenset(ALSO_KNOWN_AS.get(name, name) for name in given)


def not_on(name: str) -> str:
    """What whoever needs it is told."""
    return f"the feature gate {name} is not on: add it to {FIELD}"


def warnings(enabled: Iterable[str], disabled: Iterable[str], path: str) -> Iterator[str]:
    """What whoever writes these two lists should know."""
    for field, names in (("featureGates", enabled), ("disabledFeatureGates", disabled)):
        for name in names:
            here = f"{path}.{field}"
            state = GATES.get(ALSO_KNOWN_AS.get(name, name))
            match state:
                case None:
                    yield f"{here}: {name} is no feature gate that is known here; it has no effect"
                case "deprecated":
                    yield f"{here}: {name} is deprecated; remove it"
                case "discontinued":
                    yield f"{here}: {name} is no more: what it stood for was removed upstream; remove it"
                case "general" if field == "featureGates":
                    yield f"{here}: {name} is on for everybody; remove it"
