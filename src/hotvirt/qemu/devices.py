"""Disks and cards in the words that QEMU takes for them, on its command line (`argv`) and over QMP alike. Pure."""

from typing import Any

from hotvirt.qemu import ids
from hotvirt.qemu.machine import Disk, File, Layer, Nic, Tap

Options = dict[str, Any]


def disk_nodes(disk: Disk) -> list[Options]:
    """What `blockdev-add` takes, deepest image first, so that each can name the one below it."""
    return [_layer_node(disk, index) for index in reversed(range(len(disk.layers)))]


def _layer_node(disk: Disk, index: int) -> Options:
    layer: Layer = disk.layers[index]
    read_only = disk.opens_read_only(index)
    node: Options = {
        "driver": layer.format,
        "node-name": ids.node_name(disk.name, index),
        "read-only": read_only,
        "file": file_node(layer.file, read_only=read_only)
        | {"node-name": ids.file_node_name(disk.name, index)}
        | ({"aio": "native"} if disk.native_io else {}),
    }
    if disk.discard and not read_only:
        node["discard"] = node["file"]["discard"] = "unmap"
    if disk.cache == "none":
        node["cache"] = node["file"]["cache"] = {"direct": True, "no-flush": False}
    if layer.format == "qcow2":
        # Said even when there is none: a header must not make QEMU open what it names.
        below = index + 1
        node["backing"] = ids.node_name(disk.name, below) if below < len(disk.layers) else None
    return node


def file_node(file: File, *, read_only: bool) -> Options:
    filename = file.path if file.fd is None else f"/dev/fdset/{file.fd}"
    driver = "host_device" if file.block_device else "file"
    return {"driver": driver, "filename": filename, "read-only": read_only}


def disk_device(disk: Disk, *, place: Options) -> Options:
    """What `device_add` takes. `place`: the bus and the address on it."""
    driver = {
        ("virtio", "disk"): "virtio-blk-pci",
        ("scsi", "disk"): "scsi-hd",
        ("scsi", "cdrom"): "scsi-cd",
        ("scsi", "lun"): "scsi-block",
        ("sata", "disk"): "ide-hd",
        ("sata", "cdrom"): "ide-cd",
        ("usb", "disk"): "usb-storage",
    }[disk.bus, disk.kind]
    device: Options = {"driver": driver, "id": ids.disk_id(disk.name), **place}
    if disk.layers:
        device["drive"] = ids.node_name(disk.name)
    if disk.serial and disk.kind != "lun":
        device["serial"] = disk.serial
    if disk.boot_index is not None:
        device["bootindex"] = disk.boot_index
    if disk.kind == "disk":
        device["write-cache"] = "off" if disk.cache == "writethrough" else "on"
    if disk.shareable:
        device["share-rw"] = True
    return device | _disk_tuning(disk)


def _disk_tuning(disk: Disk) -> Options:
    size = disk.block_size
    wanted = {
        "iothread": disk.io_thread,
        "num-queues": disk.queues,
        "logical_block_size": size.logical,
        "physical_block_size": size.physical,
        "discard_granularity": size.discard,
        "werror": disk.on_error or "",
        # Reads need no room, so QEMU knows no such policy for them.
        "rerror": "report" if disk.on_error == "enospc" else disk.on_error or "",
    }
    return {key: value for key, value in wanted.items() if value}


def nic_device(nic: Nic, *, place: Options) -> Options:
    driver = {"virtio": "virtio-net-pci", "e1000e": "e1000e", "e1000": "e1000", "rtl8139": "rtl8139"}[nic.model]
    device: Options = {"driver": driver, "id": ids.nic_id(nic.name), "netdev": ids.netdev_id(nic.name), **place}
    device["mac"] = nic.mac
    if isinstance(nic.backend, Tap) and nic.backend.others:
        # An interrupt for each queue each way, one for changes and one for the control queue.
        device |= {"mq": True, "vectors": 2 * len(nic.backend.queues) + 2}
    if nic.acpi_index:
        device["acpi-index"] = nic.acpi_index
    if nic.boot_index is not None:
        device["bootindex"] = nic.boot_index
    elif nic.model == "virtio":
        # No boot from network unless asked for: an option ROM costs the firmware time for every card.
        device["romfile"] = ""
    if nic.mtu and nic.model == "virtio":
        device["host_mtu"] = nic.mtu
    return device


def nic_backend(nic: Nic) -> Options:
    """What `netdev_add` takes. Descriptors are numbers in the command line; over QMP, names given with `getfd`."""
    netdev: Options = {"id": ids.netdev_id(nic.name)}
    if isinstance(nic.backend, Tap):
        several = "s" if nic.backend.others else ""
        netdev |= {"type": "tap", f"fd{several}": ":".join(str(queue.fd) for queue in nic.backend.queues)}
        vhost = [str(queue.vhost_fd) for queue in nic.backend.queues if queue.vhost_fd is not None]
        return netdev | ({"vhost": True, f"vhostfd{several}": ":".join(vhost)} if vhost else {})
    netdev["type"] = "user"
    if nic.backend.network:
        netdev["net"] = nic.backend.network
    if nic.backend.hostname:
        netdev["hostname"] = nic.backend.hostname
    if nic.backend.restrict:
        netdev["restrict"] = True
    if nic.backend.forwards:
        netdev["hostfwd"] = [
            {"str": f"{f.protocol}:{f.host}:{f.host_port}-:{f.guest_port}"} for f in nic.backend.forwards
        ]
    return netdev
