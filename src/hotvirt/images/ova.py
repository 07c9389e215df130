"""A machine as an OVA: a tar of its description (OVF), a manifest of SHA-256 sums, and its streamOptimized VMDKs.

The description is DMTF's OVF 1.1 with VMware's hardware family, which importers everywhere read. Making the text is
pure; `pack` writes the file, under a temporary name until it is whole.
"""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from msgspec import Struct

from hotvirt.images import publish

OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
VMW = "http://www.vmware.com/schema/ovf"
STREAM = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
HARDWARE = "vmx-13"
NETWORK = "VM Network"
CHUNK = 1 << 20
_PROCESSOR, _MEMORY, _ETHERNET, _DISK, _SATA = 3, 4, 10, 17, 20
_OTHER_64 = "102"  # CIM's word for a 64-bit system that is not named


class Disk(Struct, frozen=True):
    """`file`: the VMDK beside the description; `size`: of it; `capacity`: what a guest sees."""

    name: str
    file: str
    size: int
    capacity: int


class Card(Struct, frozen=True):
    name: str
    mac: str = ""
    model: str = "VmxNet3"


class Machine(Struct, frozen=True, kw_only=True):
    name: str
    cpus: int
    memory: int
    disks: Sequence[Disk] = ()
    cards: Sequence[Card] = ()
    efi: bool = False
    secure_boot: bool = False


def description(machine: Machine) -> bytes:
    """The OVF."""
    for prefix, uri in (("ovf", OVF), ("rasd", RASD), ("vssd", VSSD), ("vmw", VMW)):
        ET.register_namespace(prefix, uri)
    root = ET.Element(_o("Envelope"))
    files = ET.SubElement(root, _o("References"))
    for index, disk in enumerate(machine.disks):
        ET.SubElement(files, _o("File"), {_o("id"): f"file{index}", _o("href"): disk.file, _o("size"): str(disk.size)})
    section = _section(root, "DiskSection", "The disks")
    for index, disk in enumerate(machine.disks):
        ET.SubElement(section, _o("Disk"), {
            _o("diskId"): f"disk{index}", _o("fileRef"): f"file{index}", _o("capacity"): str(disk.capacity),
            _o("capacityAllocationUnits"): "byte", _o("format"): STREAM,
        })  # fmt: skip
    networks = _section(root, "NetworkSection", "The networks")
    ET.SubElement(networks, _o("Network"), {_o("name"): NETWORK})
    system = ET.SubElement(root, _o("VirtualSystem"), {_o("id"): machine.name})
    ET.SubElement(system, _o("Info")).text = "A virtual machine"
    ET.SubElement(system, _o("Name")).text = machine.name
    kind = ET.SubElement(system, _o("OperatingSystemSection"), {_o("id"): _OTHER_64})
    ET.SubElement(kind, _o("Info")).text = "The guest's system"
    _hardware(system, machine)
    ET.indent(root)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode").encode() + b"\n"


def _hardware(system: ET.Element, machine: Machine) -> None:
    hardware = _section(system, "VirtualHardwareSection", "What the machine has")
    about = ET.SubElement(hardware, _o("System"))
    for name, value in (
        ("ElementName", "Virtual Hardware Family"), ("InstanceID", "0"),
        ("VirtualSystemIdentifier", machine.name), ("VirtualSystemType", HARDWARE),
    ):  # fmt: skip
        ET.SubElement(about, f"{{{VSSD}}}{name}").text = value
    number = iter(range(1, 1000))
    _item(hardware, next(number), f"{machine.cpus} virtual CPUs", _PROCESSOR,
          AllocationUnits="hertz * 10^6", VirtualQuantity=str(machine.cpus))  # fmt: skip
    mebibytes = -(-machine.memory >> 20)
    _item(hardware, next(number), f"{mebibytes} MB of memory", _MEMORY,
          AllocationUnits="byte * 2^20", VirtualQuantity=str(mebibytes))  # fmt: skip
    controller = next(number)
    _item(hardware, controller, "SATA controller 0", _SATA, Address="0", ResourceSubType="vmware.sata.ahci")
    for index, disk in enumerate(machine.disks):
        _item(hardware, next(number), disk.name, _DISK, AddressOnParent=str(index),
              HostResource=f"ovf:/disk/disk{index}", Parent=str(controller))  # fmt: skip
    for index, card in enumerate(machine.cards):
        fields = {"Address": card.mac} if card.mac else {}
        _item(hardware, next(number), card.name, _ETHERNET, AddressOnParent=str(7 + index),
              AutomaticAllocation="true", Connection=NETWORK, ResourceSubType=card.model, **fields)  # fmt: skip
    if machine.efi:
        _config(hardware, "firmware", "efi")
    if machine.secure_boot:
        _config(hardware, "bootOptions.efiSecureBootEnabled", "true")


def _config(hardware: ET.Element, key: str, value: str) -> None:
    ET.SubElement(
        hardware, f"{{{VMW}}}Config", {_o("required"): "false", f"{{{VMW}}}key": key, f"{{{VMW}}}value": value}
    )


def _item(hardware: ET.Element, number: int, name: str, kind: int, **fields: str) -> None:
    """Its elements in the order of the alphabet, as the schema has them."""
    item = ET.SubElement(hardware, _o("Item"))
    known = {**fields, "ElementName": name, "InstanceID": str(number), "ResourceType": str(kind)}
    for field in sorted(known):
        ET.SubElement(item, f"{{{RASD}}}{field}").text = known[field]


def _section(parent: ET.Element, name: str, info: str) -> ET.Element:
    section = ET.SubElement(parent, _o(name))
    ET.SubElement(section, _o("Info")).text = info
    return section


def _o(name: str) -> str:
    return f"{{{OVF}}}{name}"


def manifest(sums: dict[str, str]) -> bytes:
    """Of file name -> SHA-256."""
    return "".join(f"SHA256({name})= {digest}\n" for name, digest in sums.items()).encode()


def pack(target: Path, machine: Machine, directory: Path) -> None:
    """`directory` has the disks' files. What was at `target` is replaced once the new one is whole."""
    text = description(machine)
    name = f"{machine.name}.ovf"
    sums = {name: hashlib.sha256(text).hexdigest()}
    sums |= {disk.file: _digest(directory / disk.file) for disk in machine.disks}
    temporary = target.with_name(f".{target.name}.part")
    try:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT if _fits(machine) else tarfile.GNU_FORMAT) as tar:
            _add(tar, name, text)
            _add(tar, f"{machine.name}.mf", manifest(sums))
            for disk in machine.disks:
                info = tar.gettarinfo(directory / disk.file, disk.file)
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                with (directory / disk.file).open("rb") as content:
                    tar.addfile(info, content)
        publish.sync_path(temporary)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def _fits(machine: Machine) -> bool:
    """The plain tar format ends at 8 GiB a file."""
    return all(disk.size < 8 << 30 for disk in machine.disks)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    tar.addfile(info, io.BytesIO(content))


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
