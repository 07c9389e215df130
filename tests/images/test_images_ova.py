"""An OVA's description and manifest say what is in it."""

import hashlib
import tarfile
from xml.etree import ElementTree as ET

from hotvirt.images import ova

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"


def test_ova(tmp_path):
    (tmp_path / "web-disk1.vmdk").write_bytes(b"disk")
    machine = ova.Machine(
        name="web", cpus=3, memory=3 << 30, disks=[ova.Disk("root", "web-disk1.vmdk", 4, 10 << 30)],
        cards=[ova.Card("default", "02:00:00:00:00:01", "E1000")], efi=True,
    )  # fmt: skip
    ova.pack(tmp_path / "web.ova", machine, tmp_path)
    with tarfile.open(tmp_path / "web.ova") as tar:
        assert tar.getnames() == ["web.ovf", "web.mf", "web-disk1.vmdk"]
        text = tar.extractfile("web.ovf").read()
        sums = tar.extractfile("web.mf").read().decode().splitlines()
    assert sums == [
        f"SHA256(web.ovf)= {hashlib.sha256(text).hexdigest()}",
        f"SHA256(web-disk1.vmdk)= {hashlib.sha256(b'disk').hexdigest()}",
    ]
    root = ET.fromstring(text)
    disk = root.find(f"{OVF}DiskSection/{OVF}Disk")
    assert disk.get(f"{OVF}capacity") == str(10 << 30)
    assert root.find(f"{OVF}References/{OVF}File").get(f"{OVF}id") == disk.get(f"{OVF}fileRef")
    items = {}
    for item in root.iter(f"{OVF}Item"):
        fields = {each.tag.removeprefix(RASD): each.text for each in item}
        assert list(fields) == sorted(fields), "the schema wants them so"
        items[fields["ResourceType"]] = fields
    assert (items["3"]["VirtualQuantity"], items["4"]["VirtualQuantity"]) == ("3", "3072")
    assert items["17"]["Parent"] == items["20"]["InstanceID"]
    assert (items["10"]["Address"], items["10"]["ResourceSubType"]) == ("02:00:00:00:00:01", "E1000")
    assert b'key="firmware"' in text
    assert not list(tmp_path.glob(".*part"))
