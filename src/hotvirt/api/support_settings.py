"""Why fields of the KubeVirt object, of migrations and of their policies may be set and change nothing here.

None of them is refused, since a manifest written for upstream should go through: whoever sets one is told by a warning.
"""

_OPERATOR = "there is no operator that rolls components out"
_ONE_PROCESS = "the control plane is one process"
_COMPONENTS = "there are no component pods to place or patch"
_NO_MIGRATION = "guests are resized in place; there is no second node to move to"
_HOST_DEVICES = "devices of the host cannot be passed to guests yet"
_CERTIFICATES = "certificates are renewed at each start"
_BUILT_IN = "built-in and local images are on this machine, and never pulled"
_SANDBOX = "QEMU is confined by its own user, namespaces and sandbox"
_AMD64 = "guests are amd64"
_FIRMWARE = "the firmware is the one QEMU's package brings"
_AS_QEMU = "what QEMU offers is asked of QEMU"

NO_EFFECT: dict[str, str] = {
    "KubeVirtSpec.certificateRotateStrategy": _CERTIFICATES,
    "KubeVirtSpec.customizeComponents": _COMPONENTS,
    "KubeVirtSpec.imagePullPolicy": "there is nothing to pull",
    "KubeVirtSpec.imagePullSecrets": "there is nothing to pull",
    "KubeVirtSpec.imageRegistry": "there is nothing to pull",
    "KubeVirtSpec.imageTag": "there is nothing to pull",
    "KubeVirtSpec.infra": _COMPONENTS,
    "KubeVirtSpec.monitorAccount": "metrics are read without an account of their own",
    "KubeVirtSpec.monitorNamespace": "metrics are read without an account of their own",
    "KubeVirtSpec.productComponent": _OPERATOR,
    "KubeVirtSpec.productName": _OPERATOR,
    "KubeVirtSpec.productVersion": _OPERATOR,
    "KubeVirtSpec.serviceMonitorNamespace": "metrics are read without an account of their own",
    "KubeVirtSpec.synchronizationPort": _NO_MIGRATION,
    "KubeVirtSpec.uninstallStrategy": _OPERATOR,
    "KubeVirtSpec.workloadUpdateStrategy": "guests are updated in place",
    "KubeVirtSpec.workloads": _COMPONENTS,
    "KubeVirtConfiguration.additionalGuestMemoryOverheadRatio": "QEMU's overhead is known, and counted as it is",
    "KubeVirtConfiguration.apiConfiguration": _ONE_PROCESS,
    "KubeVirtConfiguration.autoCPULimitNamespaceLabelSelector": "no limit is set that was not asked for",
    "KubeVirtConfiguration.changedBlockTrackingLabelSelectors": "changed blocks are not tracked yet",
    "KubeVirtConfiguration.commonInstancetypesDeployment": "bring the instancetypes you want with kubectl apply",
    "KubeVirtConfiguration.confidentialCompute": "guests are not encrypted",
    "KubeVirtConfiguration.controllerConfiguration": _ONE_PROCESS,
    "KubeVirtConfiguration.defaultRuntimeClass": "a launcher pod is QEMU's process, and no container runtime has it",
    "KubeVirtConfiguration.emulatedMachines": _AS_QEMU,
    "KubeVirtConfiguration.handlerConfiguration": _ONE_PROCESS,
    "KubeVirtConfiguration.hypervisors": "KVM where it works, else QEMU's emulation",
    "KubeVirtConfiguration.imagePullPolicy": _BUILT_IN,
    "KubeVirtConfiguration.ksmConfiguration": "same pages are not merged",
    "KubeVirtConfiguration.mediatedDevicesConfiguration": _HOST_DEVICES,
    "KubeVirtConfiguration.memBalloonStatsPeriod": "a guest is asked for its memory when somebody wants to know",
    "KubeVirtConfiguration.migrations": _NO_MIGRATION,
    "KubeVirtConfiguration.minCPUModel": _AS_QEMU,
    "KubeVirtConfiguration.obsoleteCPUModels": _AS_QEMU,
    "KubeVirtConfiguration.ovmfPath": _FIRMWARE,
    "KubeVirtConfiguration.permittedHostDevices": _HOST_DEVICES,
    "KubeVirtConfiguration.persistentReservationConfiguration": "disks are files, which know no reservations",
    "KubeVirtConfiguration.roleAggregationStrategy": "KubeVirt's roles are always part of admin, edit and view",
    "KubeVirtConfiguration.seccompConfiguration": _SANDBOX,
    "KubeVirtConfiguration.selinuxLauncherType": _SANDBOX,
    "KubeVirtConfiguration.supportContainerResources": "a guest needs no containers beside its own",
    "KubeVirtConfiguration.supportedGuestAgentVersions": "an agent is asked what it can do, whatever its version",
    "KubeVirtConfiguration.tlsConfiguration": "TLS 1.2 and newer, with the ciphers OpenSSL finds safe",
    "KubeVirtConfiguration.virtTemplateDeployment": _OPERATOR,
    "KubeVirtConfiguration.virtualMachineInstancesPerNode": "memory and CPU are what limits a node",
    "VirtualMachineOptions.disableFreePageReporting": "free pages are always given back",
    "KubeVirtConfiguration.vmStateStorageClass": "firmware and TPM keep their state in the home's directory",
    "KubeVirtConfiguration.webhookConfiguration": _ONE_PROCESS,
    "ArchConfiguration.arm64": _AMD64,
    "ArchConfiguration.defaultArchitecture": _AMD64,
    "ArchConfiguration.ppc64le": _AMD64,
    "ArchConfiguration.s390x": _AMD64,
    "ArchSpecificConfiguration.emulatedMachines": _AS_QEMU,
    "ArchSpecificConfiguration.ovmfPath": _FIRMWARE,
    "DeveloperConfiguration.clusterProfiler": _ONE_PROCESS,
    "DeveloperConfiguration.diskVerification": "images are inspected within limits of their own",
    "DeveloperConfiguration.logVerbosity": "set with hotvirt up --verbose",
    "DeveloperConfiguration.minimumClusterTSCFrequency": _NO_MIGRATION,
    "DeveloperConfiguration.minimumReservePVCBytes": "disks are made as large as their claim",
    "DeveloperConfiguration.nodeSelectors": _COMPONENTS,
    "DeveloperConfiguration.pvcTolerateLessSpaceUpToPercent": "disks are made as large as their claim",
    "DeveloperConfiguration.useEmulation": "KVM is probed at start, and emulation used where it does not work",
    "NetworkConfiguration.binding": "bindings of others cannot be brought in yet",
    "NetworkConfiguration.permitBridgeInterfaceOnPodNetwork": "a bridged guest has its pod's address as others have",
    "NetworkConfiguration.permitSlirpInterface": "the slirp binding is gone upstream",
    "VirtualMachineInstanceMigrationSpec.addedNodeSelector": _NO_MIGRATION,
    "VirtualMachineInstanceMigrationSpec.priority": _NO_MIGRATION,
    "VirtualMachineInstanceMigrationSpec.receive": _NO_MIGRATION,
    "VirtualMachineInstanceMigrationSpec.sendTo": _NO_MIGRATION,
    "MigrationPolicySpec.allowAutoConverge": _NO_MIGRATION,
    "MigrationPolicySpec.allowPostCopy": _NO_MIGRATION,
    "MigrationPolicySpec.allowWorkloadDisruption": _NO_MIGRATION,
    "MigrationPolicySpec.bandwidthPerMigration": _NO_MIGRATION,
    "MigrationPolicySpec.completionTimeoutPerGiB": _NO_MIGRATION,
    "MigrationPolicySpec.experimental": _NO_MIGRATION,
    "MigrationPolicySpec.maxDowntimeMs": _NO_MIGRATION,
    "MigrationPolicySpec.selectors": _NO_MIGRATION,
}

WORDS = {
    "KubeVirtConfiguration.architectureConfiguration": "Settings for guests of one architecture.",
    "ArchConfiguration.amd64": "Settings for guests of x86-64, which all guests are.",
    "ArchSpecificConfiguration.machineType": "Default machine type, where configuration.machineType says none.",
    "KubeVirtConfiguration.cpuRequest": "CPU a guest's pod asks for when its machine names none, such as 100m.",
    "KubeVirtConfiguration.instancetype": "How machines refer to their instancetype.",
    "KubeVirtConfiguration.virtualMachineOptions": "What guests have that do not say.",
    "VirtualMachineOptions.disableSerialConsoleLog": "What guests print on their serial ports is not kept.",
    "KubeVirtConfiguration.smbios": "What guests read of their maker in their DMI tables, where hotvirt's own names are not wanted.",  # noqa: E501
    "SMBiosConfiguration.family": "Family.",
    "SMBiosConfiguration.manufacturer": "Manufacturer. Default hotvirt.",
    "SMBiosConfiguration.product": "Product. Default VirtualMachine.",
    "SMBiosConfiguration.sku": "Stock-keeping unit.",
    "SMBiosConfiguration.version": "Version.",
    "KubeVirtConfiguration.network": "What guests are connected by when their machine names no interface.",
    "NetworkConfiguration.defaultNetworkInterface": "Binding of the interface a machine gets that names none: masquerade (default) or bridge.",  # noqa: E501
    "InstancetypeConfiguration.referencePolicy": "reference keeps the name in the machine; expand and expandAll write its sizes into it.",  # noqa: E501
    "VirtualMachineInstanceMigration.spec": "Which guest to move.",
    "VirtualMachineInstanceMigration.status": "How far the move is.",
    "VirtualMachineInstanceMigrationSpec.vmiName": "The guest to move. A home has one node, so a migration is refused with what stands in its way.",  # noqa: E501
    "MigrationPolicy.spec": "How guests are moved that its selectors match.",
}
