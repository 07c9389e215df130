"""Words for `kubectl explain` of the parts of a machine that need a place or memory of their own. See `explain`."""
# ruff: noqa: E501 (a sentence a line)

WORDS = {
    "Machine.type": "q35 (PCI Express, the default) or pc (i440fx: plain PCI, IDE; for guests too old for q35), or one of their versions.",
    "DiskTarget.bus": "virtio, scsi, sata or usb. Only scsi and virtio disks come and go while the guest runs.",
    "DiskTarget.pciAddress": "Where the guest finds this virtio disk, such as 0000:05:00.0: on q35, bus N is behind the machine's Nth port.",
    "Devices.networkInterfaceMultiqueue": "A queue a vCPU for each virtio card that the guest starts with (in a home with user-mode networking, one).",
    "Devices.filesystems": "Volumes that the guest mounts as a file system (mount -t virtiofs NAME DIRECTORY), where the guest's kernel has a driver for virtiofs.",
    "Filesystem.name": "Name of the volume, and what the guest mounts: up to 36 characters.",
    "Filesystem.virtiofs": "The kind, an empty object. ConfigMaps, Secrets, accounts and the downward API are read-only there, and follow their source; a claim's directory is read and written.",
    "CDRomTarget.tray": "closed (the default) or open: the disc is not in the drive, which the guest finds empty.",
    "CPU.dedicatedCpuPlacement": "Each vCPU has a CPU of the host that neither another machine nor the home uses. One of the host's stays for all others; a machine that finds too few waits.",
    "CPU.isolateEmulatorThread": "One more CPU of its own for what QEMU does beside the vCPUs (disks, display), which else shares theirs.",
    "Memory.hugepages": "Memory of large pages that the node has set aside (sysctl vm.nr_hugepages): faster, and taken whole when the guest starts, so it does not grow while the guest runs.",
    "Hugepages.pageSize": "2Mi or 1Gi.",
    "Disk.tag": "Told to cloud-init: the seed's metadata lists this disk with its address and this tag.",
    "Interface.tag": "Told to cloud-init: the seed's metadata lists this card with its address and this tag.",
    "Interface.pciAddress": "Where the guest finds the card, such as 0000:05:00.0: on q35, bus N is behind the machine's Nth port.",
}
