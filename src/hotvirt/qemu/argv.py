"""The command line of one QEMU process: a pure function of the machine and of which QEMU it is for.

Nothing is left to QEMU's defaults (`-nodefaults`, no user configuration): every device has our id, so it can be found
and unplugged later, and nothing appears in a newer QEMU that was not asked for. Names and serials travel in JSON, where
no comma in them can start another option.
"""

import json

from hotvirt.qemu import ids, ports
from hotvirt.qemu.binary import QemuBinary
from hotvirt.qemu.cpu import boot_vcpus
from hotvirt.qemu.devices import Options, disk_device, disk_nodes, file_node, nic_backend, nic_device
from hotvirt.qemu.machine import MIB, PLUG_STEP, File, Machine, fault
from hotvirt.qemu.translation import buffer_mib

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
ACTIONS = "shutdown=pause,reboot={},panic=pause"
"""A guest that powers off, or panics, stays as a paused process until someone has seen it: nothing is lost when the
home is down at that moment."""


USB_PORTS = 15
"""As many as its controller can have; each port takes one disk or tablet."""
MWAIT = "monitor"
NO_TIMER_CHECK = "no_timer_check"
"""Linux counts timer interrupts early in its boot. An emulated guest that waits for its turn on a busy machine misses
some, takes its timer for broken and tries other ways to connect it; on the way the interrupt controller can be left
waiting for an acknowledgement that never comes, and the guest hangs: 1 in 50 that booted at once on two CPUs. Under KVM
Linux leaves the check out by itself."""


def argv(machine: Machine, *, qemu: QemuBinary) -> list[str]:
    """The whole command line, `qemu.path` first. ValueError when `machine.fault` finds something."""
    if wrong := fault(machine) or ports.fault(machine):
        raise ValueError(wrong)
    return [
        qemu.path,
        *_base(machine),
        *_cpu_and_memory(machine, qemu),
        *_firmware(machine, qemu),
        *_file_descriptors(machine),
        *_ports(machine),
        *_controllers(machine),
        *_channels(machine),
        *_io_threads(machine),
        *_disks(machine),
        *_nics(machine),
        *_file_systems(machine),
        *_extras(machine),
    ]


def _json(option: str, value: Options) -> list[str]:
    return [option, json.dumps(value, separators=(",", ":"))]


def _comma(text: str) -> str:
    """In QEMU's key=value options a comma ends the value; doubled it is a comma."""
    return text.replace(",", ",,")


def _base(machine: Machine) -> list[str]:
    power = "ICH9-LPC" if ports.is_pcie(machine) else "PIIX4_PM"
    return [
        "-name", f"guest={_comma(machine.name)},debug-threads=on",
        "-uuid", machine.uuid,
        "-no-user-config",
        "-nodefaults",
        "-display", "none",
        "-msg", "timestamp=on",
        "-action", _actions(machine),
        "-sandbox", SANDBOX,
        "-rtc", ",".join([f"base={machine.clock}", *machine.rtc_options]),
        # A guest that suspends itself to memory or disk would look hung: nothing here wakes it.
        "-global", f"{power}.disable_s3=1",
        "-global", f"{power}.disable_s4=1",
        *(["-S"] if machine.start_paused else []),
    ]  # fmt: skip


def _actions(machine: Machine) -> str:
    actions = ACTIONS.format("shutdown" if machine.ends_on_reboot else "reset")
    return f"{actions},watchdog={machine.watchdog}" if machine.watchdog else actions


def _cpu_and_memory(machine: Machine, qemu: QemuBinary) -> list[str]:
    topology = machine.topology
    vcpus = _vcpus(machine, qemu)
    shape = f"sockets={topology.all_sockets},cores={topology.cores},threads={topology.threads}"
    options = [
        "-accel", _accelerator(machine),
        "-cpu", ",".join([machine.cpu_model, *_cpu_features(machine)]),
        "-smp", f"cpus={vcpus},{shape},maxcpus={topology.max_vcpus}",
    ]  # fmt: skip
    backend = ""
    if machine.hugepage_size or machine.shared_memory:
        backend = ",memory-backend=ram0"
        ram: Options = {"qom-type": "memory-backend-memfd", "id": "ram0", "size": machine.boot_memory}
        ram |= {"share": machine.shared_memory}
        if machine.hugepage_size:
            ram |= {"hugetlb": True, "hugetlbsize": machine.hugepage_size, "prealloc": True}
        options += _json("-object", ram)
    size = f"size={machine.boot_memory // 1024}k"
    if machine.growable_memory:
        most = machine.boot_memory + machine.growable_memory + machine.dimm_memory
        size += f",{f'slots={machine.dimm_slots},' if machine.dimm_slots else ''}maxmem={most // 1024}k"
    secure = ",smm=on" if _is_secure(machine) else ""
    pflash = ",pflash0=uefi-code,pflash1=uefi-vars" if machine.firmware else ""
    more = "".join(f",{option}" for option in machine.machine_options)
    return [*options, "-m", size, "-machine", f"{machine.machine_type}{backend}{secure}{pflash}{more}"]


def _cpu_features(machine: Machine) -> tuple[str, ...]:
    """Without the instruction MWAIT where QEMU emulates several CPUs: there it does not wait. UEFI has the CPUs that it
    does not use wait so, and each would take a CPU of the host: for good, when the guest's kernel leaves them alone."""
    given = machine.cpu_features
    is_named = any(feature.lstrip("+-") == MWAIT for feature in given)
    return given if machine.accelerator == "kvm" or is_named else (*given, f"-{MWAIT}")


def _vcpus(machine: Machine, qemu: QemuBinary) -> int:
    return boot_vcpus(
        machine.topology,
        accelerator=machine.accelerator,
        version=qemu.version,
        direct_kernel=machine.kernel is not None,
        secure_boot=_is_secure(machine),
    )


def _is_secure(machine: Machine) -> bool:
    return machine.firmware is not None and machine.firmware.secure_boot


def _accelerator(machine: Machine) -> str:
    """With secure boot, each vCPU waits for all others whenever the firmware's protected part is entered. Where each is
    emulated by a thread of its own they wait for the host's CPUs as well: on two of these, which others wanted too, a
    Debian with two vCPUs took 104 s to its agent, and at times never came there; with one thread for both 60 s, and
    with one for six 54 s."""
    if machine.accelerator == "kvm":
        return "kvm"
    one_thread = ",thread=single" if _is_secure(machine) else ""
    return f"tcg,tb-size={buffer_mib(machine.topology, machine.boot_memory)}{one_thread}"


def _firmware(machine: Machine, qemu: QemuBinary) -> list[str]:
    options = ["-boot", "menu=off,strict=on"]
    if uefi := machine.firmware:
        for name, file, read_only in (("uefi-code", uefi.code, True), ("uefi-vars", uefi.variables, False)):
            node = {"driver": "raw", "node-name": name, "read-only": read_only}
            options += _json("-blockdev", node | {"file": file_node(file, read_only=read_only)})
        if uefi.secure_boot:
            options += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    if kernel := machine.kernel:
        options += ["-kernel", _reopened(kernel.kernel)]
        if kernel.initrd:
            options += ["-initrd", _reopened(kernel.initrd)]
        cmdline = kernel.cmdline
        if _vcpus(machine, qemu) > machine.topology.vcpus and "maxcpus=" not in cmdline:
            cmdline = f"{cmdline} maxcpus={machine.topology.vcpus}".strip()
        if machine.accelerator == "tcg" and NO_TIMER_CHECK not in cmdline.split():
            cmdline = f"{cmdline} {NO_TIMER_CHECK}".strip()
        options += ["-append", cmdline]
    return options


def _reopened(file: File) -> str:
    """QEMU reads kernels with fopen, which knows nothing of fdsets; procfs opens the same file anew."""
    return file.path if file.fd is None else f"/proc/self/fd/{file.fd}"


def _file_descriptors(machine: Machine) -> list[str]:
    """One set per image descriptor, numbered as the descriptor; `opaque` lets `state.observe` tell them apart."""
    options: list[str] = []
    images = [(disk.name, layer.file) for disk in machine.disks for layer in disk.layers]
    if machine.firmware:
        images += [("uefi-code", machine.firmware.code), ("uefi-vars", machine.firmware.variables)]
    images.append(("serial-log", File(fd=machine.serial_log_fd)))
    for name, file in images:
        if file.fd is not None:
            options += ["-add-fd", f"fd={file.fd},set={file.fd},opaque={name}"]
    return options


def _ports(machine: Machine) -> list[str]:
    count = ports.root_ports(machine)
    return [part for index in range(count) for part in _json("-device", ports.port(index))]


def _controllers(machine: Machine) -> list[str]:
    # Always there, also without scsi disks: hotplugged disks go onto it, it has room for 255 where ports are few.
    options = _device(machine, "virtio-scsi-pci", ids.SCSI_CONTROLLER, slot=ports.SCSI)
    options += _device(machine, "virtio-serial-pci", "serial-bus0", slot=ports.SERIAL)
    if not ports.is_pcie(machine) and any(disk.bus == "sata" for disk in machine.disks):
        options += _device(machine, "ich9-ahci", "sata0", slot=ports.SATA)
    buses = {*(each.bus for each in machine.inputs), *(disk.bus for disk in machine.disks)}
    if _has_tablet(machine) or "usb" in buses:
        options += _device(machine, "qemu-xhci", "usb0", {"p2": USB_PORTS, "p3": USB_PORTS}, slot=ports.USB)
    if machine.growable_memory:
        options += _json("-object", {
            "qom-type": "memory-backend-memfd", "id": ids.MEMORY_BACKEND, "size": machine.growable_memory,
            "reserve": False,
        })  # fmt: skip
        memory = {"memdev": ids.MEMORY_BACKEND, "requested-size": 0, "block-size": PLUG_STEP}
        options += _device(machine, "virtio-mem-pci", ids.MEMORY_DEVICE, memory, slot=ports.MEMORY)
    return options


def _device(
    machine: Machine, driver: str, name: str, extra: Options | None = None, *, slot: int, function: int | None = None
) -> list[str]:
    address = f"{ports.slot(machine, slot):#x}"
    place = {"bus": ports.root_bus(machine), "addr": address if function is None else f"{address}.{function}"}
    if function == 0:
        place["multifunction"] = True  # type: ignore[assignment]
    return _json("-device", {"driver": driver, "id": name, **place, **(extra or {})})


def _channels(machine: Machine) -> list[str]:
    options: list[str] = []
    for name, fd in (("qmp0", machine.qmp_fd), ("qmp1", machine.debug_qmp_fd)):
        if fd is not None:
            options += [*_listening(name, fd), "-mon", f"chardev={name},mode=control"]
    if machine.agent_fd is not None:
        port = {"driver": "virtserialport", "id": "agent-port", "bus": "serial-bus0.0", "nr": 1, "chardev": "agent0"}
        options += _listening("agent0", machine.agent_fd)
        options += _json("-device", port | {"name": ids.AGENT_PORT})
    if machine.serial_fd is not None:
        log_fd = machine.serial_log_fd
        log = "" if log_fd is None else f",logfile=/dev/fdset/{log_fd},logappend=on"
        chardev, listening = _listening("console0", machine.serial_fd)
        options += [chardev, listening + log]
        options += _json("-device", {"driver": "isa-serial", "id": "console-port", "chardev": "console0"})
    return options


def _listening(name: str, fd: int) -> list[str]:
    return ["-chardev", f"socket,id={name},fd={fd},server=on,wait=off"]


def _disks(machine: Machine) -> list[str]:
    options: list[str] = []
    places = ports.places(machine)
    scsi = sata = 0
    ahci = "ide" if ports.is_pcie(machine) else "sata0"
    for disk in machine.disks:
        for node in disk_nodes(disk):
            options += _json("-blockdev", node)
        if disk.bus == "virtio":
            place = places[ids.disk_id(disk.name)]
        elif disk.bus == "scsi":
            place, scsi = {"bus": f"{ids.SCSI_CONTROLLER}.0", "scsi-id": scsi, "lun": 0}, scsi + 1
        elif disk.bus == "usb":
            place = {"bus": "usb0.0"}
        else:
            place, sata = {"bus": f"{ahci}.{sata}"}, sata + 1
        options += _json("-device", disk_device(disk, place=place))
    return options


def _nics(machine: Machine) -> list[str]:
    options: list[str] = []
    places = ports.places(machine)
    for nic in machine.nics:
        options += _json("-netdev", nic_backend(nic))
        options += _json("-device", nic_device(nic, place=places[ids.nic_id(nic.name)]))
    return options


def _file_systems(machine: Machine) -> list[str]:
    options: list[str] = []
    places = ports.places(machine)
    for each in machine.file_systems:
        name = ids.file_system_id(each.tag)
        options += ["-chardev", f"socket,id={name},fd={each.fd}"]
        device = {"driver": "vhost-user-fs-pci", "id": name, "chardev": name, "tag": each.tag, **places[name]}
        options += _json("-device", device)
    return options


def _extras(machine: Machine) -> list[str]:
    options: list[str] = []
    if machine.rng:
        options += _json("-object", {"qom-type": "rng-builtin", "id": "rng0-source"})
        options += _device(machine, "virtio-rng-pci", "rng0", {"rng": "rng0-source"}, slot=ports.RNG)
    if machine.balloon:
        # Free pages go back to the host by themselves. No deflate-on-oom: the guest would take back what its pod no
        # longer has, and its MemTotal would not tell of the balloon.
        reporting = {"free-page-reporting": True}
        options += _device(machine, "virtio-balloon-pci", ids.BALLOON, reporting, slot=ports.BALLOON)
    if "isa" in machine.panic_devices:
        options += _json("-device", {"driver": "pvpanic", "id": "panic-isa"})
    if "pvpanic" in machine.panic_devices:
        options += _device(machine, "pvpanic-pci", "panic-pci", slot=ports.PANIC)
    return [*options, *_display(machine), *_inputs(machine), *_odd_devices(machine), *_smbios(machine)]


def _io_threads(machine: Machine) -> list[str]:
    names = dict.fromkeys(disk.io_thread for disk in machine.disks if disk.io_thread)
    return [part for name in names for part in _json("-object", {"qom-type": "iothread", "id": name})]


def _display(machine: Machine) -> list[str]:
    if not machine.graphics:
        return []
    if machine.video == "ramfb":
        return ["-vnc", "none", *_json("-device", {"driver": "ramfb", "id": "video0"})]
    driver = {"vga": "VGA", "virtio": "virtio-vga", "bochs": "bochs-display", "cirrus": "cirrus-vga"}[machine.video]
    extra: Options = {"vga": {"vgamem_mb": 16}, "bochs": {"vgamem": 16 * MIB}}.get(machine.video, {})
    return ["-vnc", "none", *_device(machine, driver, "video0", extra, slot=ports.VGA)]


def _inputs(machine: Machine) -> list[str]:
    options: list[str] = []
    if _has_tablet(machine):
        options += _json("-device", {"driver": "usb-tablet", "id": "tablet0", "bus": "usb0.0"})
    place = iter(range(len(machine.inputs)))
    for each in machine.inputs:
        if each.bus == "usb":
            options += _json("-device", {"driver": "usb-tablet", "id": f"input-{each.name}", "bus": "usb0.0"})
        else:
            name = f"input-{each.name}"
            options += _device(machine, "virtio-tablet-pci", name, slot=ports.INPUTS, function=next(place))
    return options


def _has_tablet(machine: Machine) -> bool:
    return machine.graphics and machine.tablet


def _odd_devices(machine: Machine) -> list[str]:
    options: list[str] = []
    if machine.sound:
        # To nowhere: a sound card plays on the host only when somebody built a way for it to be heard.
        options += ["-audiodev", "driver=none,id=audio0"]
    if machine.sound == "ich9":
        options += _device(machine, "ich9-intel-hda", "sound0", slot=ports.SOUND)
        options += _json("-device", {"driver": "hda-duplex", "id": "sound0-codec", "audiodev": "audio0"})
    elif machine.sound == "ac97":
        options += _device(machine, "AC97", "sound0", {"audiodev": "audio0"}, slot=ports.SOUND)
    if machine.watchdog:
        options += _device(machine, "i6300esb", "watchdog0", slot=ports.WATCHDOG)
    if machine.tpm_fd is not None:
        options += ["-chardev", f"socket,id=tpm0,fd={machine.tpm_fd}", "-tpmdev", "emulator,id=tpm0,chardev=tpm0"]
        options += _json("-device", {"driver": "tpm-crb", "id": "tpm", "tpmdev": "tpm0"})
    return options


def _smbios(machine: Machine) -> list[str]:
    info = machine.smbios
    fields = {
        "manufacturer": info.manufacturer,
        "product": info.product,
        "version": info.version,
        "serial": info.serial,
        "sku": info.sku,
        "family": info.family,
    }
    system = [f"{key}={_comma(value)}" for key, value in fields.items() if value]
    options = ["-smbios", ",".join(["type=1", f"uuid={machine.uuid}", *system])] if system else []
    chassis = {
        "manufacturer": info.chassis.manufacturer,
        "version": info.chassis.version,
        "serial": info.chassis.serial,
        "asset": info.chassis.asset,
        "sku": info.chassis.sku,
    }
    if given := [f"{key}={_comma(value)}" for key, value in chassis.items() if value]:
        options += ["-smbios", ",".join(["type=3", *given])]
    for text in info.oem_strings:
        options += ["-smbios", f"type=11,value={_comma(text)}"]
    return options


def memory_overhead(machine: Machine) -> int:
    """Bytes QEMU itself may take beyond the guest's memory: measured 41 MiB, the translation buffer, and with a direct
    kernel the copies of it and of its initrd until the guest has booted."""
    buffer = buffer_mib(machine.topology, machine.boot_memory) if machine.accelerator == "tcg" else 0
    return (60 + buffer + (90 if machine.kernel else 0)) * MIB
