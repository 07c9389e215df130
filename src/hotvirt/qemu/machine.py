"""One virtual machine as QEMU will be given it, and nothing of Kubernetes.

Plain frozen values: whoever starts a guest fills in a `Machine`, `argv.argv` renders it, `launch` starts it. A
descriptor number in here is the number the descriptor will have *inside QEMU* (`launch.Descriptors` hands numbers
out), so that the same machine always gives the same command line, whatever the starting process has open.

Sizes are bytes. `fault()` finds what QEMU would refuse, before QEMU is started.
"""

from typing import Literal

from msgspec import Struct

MIB = 1 << 20
GIB = 1 << 30
MEMORY_BLOCK = 128 * MIB
"""Linux on x86 plugs memory in sections of this size, so the end of a smaller one would stay unused."""
SATA_PORTS = 6
LONGEST_TAG = 36
"""Of a file system: the device has room for no more."""
PLUG_STEP = 2 * MIB
"""virtio-mem's block-size: `requested-size` is a multiple of it."""

AcceleratorKind = Literal["kvm", "tcg"]
Bus = Literal["virtio", "scsi", "sata", "usb"]
DiskKind = Literal["disk", "cdrom", "lun"]
Cache = Literal["none", "writethrough", "writeback"]
Format = Literal["raw", "qcow2"]
ErrorPolicy = Literal["stop", "ignore", "report", "enospc"]


class File(Struct, frozen=True):
    """A file for QEMU: an open descriptor (`fd`, QEMU needs no right to the path), or else a path it opens itself."""

    path: str = ""
    fd: int | None = None
    block_device: bool = False


class Layer(Struct, frozen=True):
    """One image of a chain. The format is always said, never probed: a guest can write any header into a raw disk."""

    file: File
    format: Format = "raw"


class BlockSize(Struct, frozen=True):
    """Bytes that the disk tells the guest of; 0 leaves it to QEMU (512)."""

    logical: int = 0
    physical: int = 0
    discard: int = 0


class Disk(Struct, frozen=True, kw_only=True):
    """`layers` is the whole chain, what the guest writes to first, its backing images after it (opened read-only).

    No layers: an empty CD-ROM drive. `name` is unique in the machine and gives QEMU's ids (see `ids`).
    """

    name: str
    layers: tuple[Layer, ...] = ()
    kind: DiskKind = "disk"
    bus: Bus = "virtio"
    read_only: bool = False
    serial: str = ""
    boot_index: int | None = None
    cache: Cache = "writeback"
    discard: bool = True
    shareable: bool = False
    native_io: bool = False
    """Linux AIO instead of threads; only with cache none."""
    io_thread: str = ""
    """The thread that serves it, "" for QEMU's main loop; disks may share one. Virtio bus only."""
    queues: int = 0
    """Of a virtio disk; 0 leaves it to QEMU (one a vCPU)."""
    on_error: ErrorPolicy | None = None
    """None: a full host disk pauses the guest, other errors are told to it."""
    block_size: BlockSize = BlockSize()
    pci_address: str = ""
    """Where the guest is to find it, as 0000:05:00.0; virtio bus only. See `ports`."""

    def opens_read_only(self, layer: int) -> bool:
        """How QEMU opens a layer. A descriptor for it must have been opened the same way, or QEMU finds none."""
        return self.read_only or layer > 0 or self.kind == "cdrom"


class Tap(Struct, frozen=True):
    """A tap device by its open descriptor; `vhost_fd` when the host has vhost-net. `others`: its further queues."""

    fd: int
    vhost_fd: int | None = None
    others: tuple["Tap", ...] = ()

    @property
    def queues(self) -> tuple["Tap", ...]:
        return (self, *self.others)


class Forward(Struct, frozen=True):
    """A host port led to a guest port by user-mode networking."""

    host_port: int
    guest_port: int
    host: str = "127.0.0.1"
    protocol: Literal["tcp", "udp"] = "tcp"


class UserNet(Struct, frozen=True):
    """QEMU's own NAT, for homes without root. `network` such as 10.0.2.0/24; `restrict` cuts the guest off from
    everything but the forwards."""

    forwards: tuple[Forward, ...] = ()
    network: str = ""
    hostname: str = ""
    restrict: bool = False


class Nic(Struct, frozen=True, kw_only=True):
    name: str
    mac: str
    backend: Tap | UserNet
    model: Literal["virtio", "e1000e", "e1000", "rtl8139"] = "virtio"
    boot_index: int | None = None
    link_up: bool = True
    acpi_index: int = 0
    """The guest's firmware tables number the card: systemd then names it eno<index>. 0: none."""
    pci_address: str = ""
    mtu: int = 0
    """What the guest is told, which only virtio can. 0: nothing."""


class FileSystem(Struct, frozen=True, kw_only=True):
    """A directory that the guest mounts by its tag (virtiofs). Needs `shared_memory`: its server works in the guest's
    memory. `fd`: a *connected* unix socket whose other end is that server's, and which QEMU asks at its start."""

    tag: str
    fd: int


class Topology(Struct, frozen=True, kw_only=True):
    """Sockets are what is plugged; `max_sockets` >= `sockets` is how many are meant to be, and `headroom` how many QEMU
    has room for beyond, should that be raised."""

    sockets: int = 1
    cores: int = 1
    threads: int = 1
    max_sockets: int = 1
    headroom: int = 0

    @property
    def per_socket(self) -> int:
        return self.cores * self.threads

    @property
    def vcpus(self) -> int:
        """vCPUs present when the guest starts."""
        return self.sockets * self.per_socket

    @property
    def max_vcpus(self) -> int:
        """Places for vCPUs, those of the headroom among them."""
        return self.all_sockets * self.per_socket

    @property
    def all_sockets(self) -> int:
        return self.max_sockets + self.headroom


class Kernel(Struct, frozen=True):
    """Boot this kernel directly. A PVH `vmlinux` saves the guest the decompression of a bzImage."""

    kernel: File
    initrd: File | None = None
    cmdline: str = ""


class Uefi(Struct, frozen=True):
    """OVMF: `code` is shared and read-only, `variables` is the machine's own copy of the template."""

    code: File
    variables: File
    secure_boot: bool = False


class Chassis(Struct, frozen=True, kw_only=True):
    """The case that the machine's DMI tables tell of."""

    manufacturer: str = ""
    version: str = ""
    serial: str = ""
    asset: str = ""
    sku: str = ""


class Smbios(Struct, frozen=True, kw_only=True):
    """What the guest reads in its DMI tables (system information, its chassis, and OEM strings)."""

    manufacturer: str = ""
    product: str = ""
    version: str = ""
    serial: str = ""
    sku: str = ""
    family: str = ""
    oem_strings: tuple[str, ...] = ()
    chassis: Chassis = Chassis()


class Input(Struct, frozen=True, kw_only=True):
    """A tablet beside the one that comes with the display."""

    name: str
    bus: Literal["usb", "virtio"] = "usb"


WatchdogAction = Literal["reset", "shutdown", "pause"]
"""`pause`: the machine stands still as run state `watchdog`, until somebody dismisses QEMU."""
Video = Literal["vga", "virtio", "bochs", "cirrus", "ramfb"]
Sound = Literal["ich9", "ac97"]
PanicDevice = Literal["isa", "pvpanic"]
"""KubeVirt's words for the ISA and the PCI device."""


class Machine(Struct, frozen=True, kw_only=True):
    """Everything QEMU is told at its start. What is changed later is read back from QEMU (`state.observe`)."""

    name: str
    uuid: str
    accelerator: AcceleratorKind = "tcg"
    machine_type: str = "q35"
    cpu_model: str = "max"
    cpu_features: tuple[str, ...] = ()
    """Such as "+vmx", "-svm", "hv_relaxed=on"."""
    topology: Topology = Topology()
    boot_memory: int = 512 * MIB
    max_memory: int = 0
    """0: memory cannot grow. Otherwise a virtio-mem device of (at least) max_memory - boot_memory is there from the
    start, empty. As long as it is, it costs 0.1 MiB for each GiB."""
    headroom: int = 0
    """How much more than max_memory QEMU has room for, should that be raised. Nothing without a max_memory."""
    dimm_slots: int = 0
    """How many DIMMs can be plugged, of together as much as the virtio-mem device holds: for a guest whose kernel lacks
    that device's driver. Address space only: an empty slot costs nothing."""
    shared_memory: bool = False
    """Boot memory as a shared memfd (vhost-user, virtiofs, handing the guest to another QEMU) rather than private. What
    is plugged later is one in any case: a memfd's default."""
    hugepage_size: int = 0

    firmware: Uefi | None = None
    """None: SeaBIOS."""
    kernel: Kernel | None = None
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    file_systems: tuple[FileSystem, ...] = ()
    smbios: Smbios = Smbios()

    qmp_fd: int | None = None
    """This and the next three: *listening* unix sockets. They accept again after a client went away."""
    debug_qmp_fd: int | None = None
    """QMP serves one client per socket: a second one lets a person look in while the home is connected."""
    agent_fd: int | None = None
    serial_fd: int | None = None

    graphics: bool = False
    """A display adapter, a tablet, and a VNC display that listens nowhere: see `vnc.open_viewer`."""
    video: Video = "vga"
    tablet: bool = True
    """A USB tablet beside the display: without one, a pointer in VNC is never where the guest's is."""
    inputs: tuple[Input, ...] = ()
    sound: Sound | None = None
    """Heard by nobody: guests that want a sound card have one."""
    watchdog: WatchdogAction | None = None
    """An Intel 6300ESB, and what happens when the guest stops feeding it."""
    tpm_fd: int | None = None
    """A *connected* unix socket whose other end is swtpm's control channel."""
    serial_log_fd: int | None = None
    """Where everything the guest prints on its serial port is written to as well."""
    clock: str = "utc"
    """QEMU's `-rtc base`: utc, localtime, or a moment such as 2026-01-31T12:00:00 (UTC) to start from."""
    rtc_options: tuple[str, ...] = ()
    """Such as "driftfix=slew"."""
    machine_options: tuple[str, ...] = ()
    """Such as "hpet=off"."""
    rng: bool = True
    balloon: bool = True
    spare_ports: int | None = None
    """PCIe root ports beyond those in use, for hotplug; None: as `ports.root_ports` finds best."""
    start_paused: bool = False
    ends_on_reboot: bool = False
    """A guest that reboots stops as if it had powered off."""
    panic_devices: tuple[PanicDevice, ...] = ()
    """Through which a guest says that its kernel panicked."""

    @property
    def growable_memory(self) -> int:
        """Size of the virtio-mem device: what can be added, rounded up to whole Linux memory blocks."""
        room = max(0, self.max_memory + self.headroom - self.boot_memory) if self.max_memory else 0
        return -(-room // MEMORY_BLOCK) * MEMORY_BLOCK

    @property
    def dimm_memory(self) -> int:
        """Address space for DIMMs, beside the virtio-mem device's."""
        return self.growable_memory if self.dimm_slots else 0


def descriptors(machine: Machine) -> tuple[int, ...]:
    """Every descriptor number the machine speaks of, ascending: what must be handed to QEMU along with the argv."""
    files: list[File | None] = [layer.file for disk in machine.disks for layer in disk.layers]
    if machine.kernel:
        files += [machine.kernel.kernel, machine.kernel.initrd]
    if machine.firmware:
        files += [machine.firmware.code, machine.firmware.variables]
    numbers = [file.fd for file in files if file]
    for nic in machine.nics:
        if isinstance(nic.backend, Tap):
            numbers += [fd for queue in nic.backend.queues for fd in (queue.fd, queue.vhost_fd)]
    numbers += [machine.qmp_fd, machine.debug_qmp_fd, machine.agent_fd, machine.serial_fd]
    numbers += [machine.tpm_fd, machine.serial_log_fd, *(each.fd for each in machine.file_systems)]
    return tuple(sorted({number for number in numbers if number is not None}))


def fault(machine: Machine) -> str | None:
    """The first thing QEMU would refuse or misread, as one sentence; None when there is none."""
    topology = machine.topology
    if min(topology.sockets, topology.cores, topology.threads) < 1:
        return "sockets, cores and threads must each be at least 1"
    if topology.max_sockets < topology.sockets:
        return f"max_sockets ({topology.max_sockets}) is below sockets ({topology.sockets})"
    if machine.boot_memory <= 0 or machine.boot_memory % PLUG_STEP:
        return f"boot_memory must be a multiple of 2 MiB, not {machine.boot_memory} bytes"
    if machine.max_memory and machine.max_memory < machine.boot_memory:
        return f"max_memory ({machine.max_memory}) is below boot_memory ({machine.boot_memory})"
    if machine.max_memory % PLUG_STEP:
        return f"max_memory must be a multiple of 2 MiB, not {machine.max_memory} bytes"
    return (
        _name_fault([disk.name for disk in machine.disks], "disk")
        or _name_fault([nic.name for nic in machine.nics], "nic")
        or _name_fault([each.tag for each in machine.file_systems], "file system")
        or _file_system_fault(machine)
        or _disk_fault(machine.disks)
    )  # where devices sit: `ports.fault`


def _name_fault(names: list[str], what: str) -> str | None:
    for name in names:
        if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
            return f"{what} name {name!r} may have only letters, digits, '-' and '_'"
        if names.count(name) > 1:
            return f"two {what}s are named {name!r}"
    return None


def _file_system_fault(machine: Machine) -> str | None:
    if machine.file_systems and not machine.shared_memory:
        return "file systems need shared_memory"
    long = next((each.tag for each in machine.file_systems if len(each.tag) > LONGEST_TAG), None)
    return f"file system {long!r} has a name longer than {LONGEST_TAG} characters" if long else None


def _disk_fault(disks: tuple[Disk, ...]) -> str | None:
    for disk in disks:
        if not disk.layers and disk.kind != "cdrom":
            return f"disk {disk.name!r} has no image; only a CD-ROM drive may be empty"
        if disk.kind == "cdrom" and disk.bus not in ("sata", "scsi"):
            return f"CD-ROM {disk.name!r} cannot be on the {disk.bus} bus: use sata or scsi"
        if disk.native_io and disk.cache != "none":
            return f"disk {disk.name!r}: native I/O needs cache none"
        if disk.kind == "lun" and disk.bus != "scsi":
            return f"lun {disk.name!r} must be on the scsi bus"
        if disk.kind == "disk" and disk.bus == "sata" and disk.read_only:
            return f"disk {disk.name!r} cannot be read-only on the sata bus: use virtio or scsi"
    if sum(disk.bus == "sata" for disk in disks) > SATA_PORTS:
        return f"at most {SATA_PORTS} disks fit on the sata bus: put the others on virtio or scsi"
    return None
