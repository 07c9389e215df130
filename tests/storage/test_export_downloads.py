"""What is downloaded of a machine is what it had: by links, by the CLI, and as an OVA that boots."""

import gzip
import hashlib
import json
import ssl
import subprocess
import tarfile
import urllib.error
import urllib.request
from base64 import b64decode
from xml.etree import ElementTree as ET

import pytest

pytestmark = pytest.mark.guest
MIB = 1 << 20
WORDS = b"OVA-BOOTED\r\n"


def boot_sector():
    """A disk that says WORDS on the first serial port, and halts: a master boot record of a few instructions."""
    # mov si, text; next: lodsb; test al, al; jz stop; mov dx, 0x3f8; out dx, al; jmp next; stop: hlt; jmp stop
    code = bytes.fromhex("fc31c08ed8be177cac84c0740bbaf803eeebf5" + "f4ebfd")
    text_at = code.index(b"\x17\x7c")
    code = code[:text_at] + (0x7C00 + len(code)).to_bytes(2, "little") + code[text_at + 2 :]
    return (code + WORDS + b"\0").ljust(510, b"\0") + b"\x55\xaa"


def content():
    pattern = b"".join(hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(32768))
    return boot_sector() + b"\0" * (4 * MIB - 512) + pattern + b"\0" * (11 * MIB)


def filled(home, claim, data):
    home.apply_claim(claim, f"{len(data) // MIB}Mi")
    home.kubectl("annotate", "pvc", claim, "cdi.kubevirt.io/storage.bind.immediate.requested=")
    home.wait(f"pvc/{claim}", "jsonpath={.status.phase}=Bound")
    volume = home.kubectl_json("get", "pvc", claim)["spec"]["volumeName"]
    (disk,) = (home.directory / "volumes" / volume).glob("disk.img")
    with disk.open("r+b") as file:
        for at in range(0, len(data), MIB):
            if data[at : at + MIB].strip(b"\0"):
                file.seek(at)
                file.write(data[at : at + MIB])


def fetch(url, token, ca):
    request = urllib.request.Request(url, headers={"x-kubevirt-export-token": token})
    with urllib.request.urlopen(request, context=ssl.create_default_context(cadata=ca), timeout=60) as answer:
        return answer.read()


def test_exports(home, tmp_path):
    data = content()
    filled(home, "root", data)
    home.apply_vm("web", memory="256Mi", max_memory="1Gi", strategy="Halted", claim="root")

    home.hotvirt("vmexport", "create", "byhand", "--vm=web", "--ttl=30m")
    home.wait("vmexport/byhand", "jsonpath={.status.phase}=Ready")
    export = home.kubectl_json("get", "vmexport", "byhand")
    link = export["status"]["links"]["external"]
    formats = {f["format"]: f["url"] for f in link["volumes"][0]["formats"]}
    secret = home.kubectl_json("get", "secret", export["status"]["tokenSecretRef"])
    token = b64decode(secret["data"]["token"]).decode()
    assert fetch(formats["raw"], token, link["cert"]) == data
    assert gzip.decompress(fetch(formats["gzip"], token, link["cert"])) == data
    for wrong in ("", "x" + token):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(formats["raw"], wrong, link["cert"])
        with refused.value as answer:
            assert answer.code == 401
    manifests = {m["type"]: m["url"] for m in link["manifests"]}
    found = json.loads(fetch(manifests["all"], token, link["cert"]))["items"]
    assert [each["kind"] for each in found] == ["ConfigMap", "VirtualMachine"]
    home.kubectl("apply", "--dry-run=server", "-n", "kube-system", "-f", "-", text=json.dumps(found[1]))

    out = tmp_path / "disk.img"
    home.hotvirt("vmexport", "download", "byhand", "--volume=root", f"--output={out}", "--format=raw")
    assert out.read_bytes() == data
    assert out.stat().st_blocks * 512 < 3 * MIB
    home.hotvirt("vmexport", "download", "once", "--pvc=root", f"--output={out}.gz")
    assert gzip.decompress(out.with_name("disk.img.gz").read_bytes()) == data
    assert home.kubectl("get", "vmexport", "once", check=False).returncode
    assert "kind: VirtualMachine" in home.hotvirt("vmexport", "download", "byhand", "--manifest").stdout

    home.hotvirt("start", "web")
    home.wait_agent("web")
    home.wait("vmexport/byhand", "jsonpath={.status.phase}=Pending")
    assert "runs" in home.messages("vmexport/byhand")

    ova = tmp_path / "web.ova"
    home.hotvirt("export", "vm/web", "--ova", str(ova))
    assert home.kubectl_json("get", "vmsnapshots")["items"] == []
    (tmp_path / "ova").mkdir()
    with tarfile.open(ova) as tar:
        assert tar.getnames() == ["web.ovf", "web.mf", "web-disk1.vmdk"]
        for name in tar.getnames():  # Debian 12's Python has no filters to extract with
            (tmp_path / "ova" / name).write_bytes(tar.extractfile(name).read())
    for line in (tmp_path / "ova" / "web.mf").read_text().splitlines():
        name, _, digest = line.removeprefix("SHA256(").partition(")= ")
        assert hashlib.sha256((tmp_path / "ova" / name).read_bytes()).hexdigest() == digest
    root = ET.parse(tmp_path / "ova" / "web.ovf").getroot()
    spaces = {"ovf": "http://schemas.dmtf.org/ovf/envelope/1"}
    assert root.find("ovf:VirtualSystem/ovf:Name", spaces).text == "web"
    back = tmp_path / "back.img"
    vmdk = tmp_path / "ova" / "web-disk1.vmdk"
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(vmdk), str(back)], check=True)
    assert back.read_bytes() == data
    booted = subprocess.Popen(
        ["qemu-system-x86_64", "-accel", "tcg,tb-size=32", "-m", "64", "-display", "none", "-nodefaults", "-serial",
         "stdio", "-drive", f"file={back},format=raw,if=ide"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        said = b""
        while WORDS not in said:
            said += booted.stdout.read(1)
    finally:
        booted.kill()
        booted.communicate()
