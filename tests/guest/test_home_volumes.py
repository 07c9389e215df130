"""One guest with every kind of disc that is made on the spot; its kernel and its disk come from a real registry."""

import base64
import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from hotvirt.images import catalog

pytestmark = pytest.mark.guest
MIB = 1 << 20
PASSWORD_HASH = "$2b$04$hLCJtI/HzckSI7ZxI08vBu4RnPMRFct/pWSLkG3.Yv8R.nSGhtoxS"
"""bcrypt of p, at its least cost."""
MARK = b"the disk of a registry's image\n"


@pytest.fixture
def registry():
    """Debian's registry, on a free port of loopback; user u has the password p."""
    missing = [tool for tool in ("docker-registry", "skopeo") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: scripts/setup --dev")
    folder = Path(tempfile.mkdtemp(prefix="hvr-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    host = f"127.0.0.1:{address[1]}"
    settings = {"version": 0.1, "http": {"addr": host}, "storage": {"filesystem": {"rootdirectory": f"{folder}/s"}}}
    settings["auth"] = {"htpasswd": {"realm": "test", "path": f"{folder}/users"}}
    (folder / "users").write_text(f"u:{PASSWORD_HASH}\n")
    (folder / "config.yml").write_text(json.dumps(settings))
    process = subprocess.Popen(
        ["docker-registry", "serve", f"{folder}/config.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    try:
        while True:
            try:
                socket.create_connection(address, timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the registry ended"
                assert time.monotonic() < deadline, "the registry does not answer"
                time.sleep(0.1)
        yield Registry(host, folder)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


class Registry:
    def __init__(self, host, folder):
        self.host, self._folder = host, folder

    def push(self, name, files):
        """An image of one layer."""
        blobs = self._folder / "layout" / "blobs" / "sha256"
        blobs.mkdir(parents=True)

        def blob(content, kind):
            digest = hashlib.sha256(content).hexdigest()
            (blobs / digest).write_bytes(content)
            kind = f"application/vnd.oci.image.{kind}"
            return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            for path, content in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        layer = gzip.compress(tar.getvalue(), compresslevel=1)
        diff = f"sha256:{hashlib.sha256(tar.getvalue()).hexdigest()}"
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff]}}
        manifest = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [blob(layer, "layer.v1.tar+gzip")],
        }  # fmt: skip
        index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
        layout = self._folder / "layout"
        (layout / "index.json").write_text(json.dumps(index))
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        copy = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            "--dest-creds=u:p",
            f"oci:{layout}",
        ]
        subprocess.run([*copy, f"docker://{self.host}/{name}"], check=True, capture_output=True)


def encoded(text):
    return base64.b64encode(text.encode()).decode()


LOOK = """
for n in /sys/block/vd*; do
  d=/dev/${n##*/}; s=$(cat $n/serial); mkdir -p /tmp/$s
  if mount -t iso9660 -o ro $d /tmp/$s 2>/dev/null; then
    echo "=$s|label|$(tail -c +32809 $d | head -c 32 | sed 's/ *$//')"
    (cd /tmp/$s; find . -type f) | while read -r f; do echo "=$s|$f|$(head -c 60 /tmp/$s/$f | head -n 1)"; done
  else echo "=$s|raw|$(head -c 60 $d | head -n 1)"; fi
  case $s in held) echo scribble >$d; sync;; esac
done; echo LOOKED-"AROUND"
"""


def test_a_guest_sees_all_its_discs(home, registry):
    tiny = catalog.default_cache() / "tiny" / "current"
    if not (tiny / "vmlinuz").exists():
        pytest.skip("hotvirt/tiny is not built yet")
    arguments = json.loads((tiny / "manifest.json").read_text())["kernelArgs"]
    files = {
        "disk/a.img": MARK.ljust(MIB, b"\0"),
        "boot/vmlinuz": (tiny / "vmlinuz").read_bytes(), "boot/initrd": (tiny / "initrd").read_bytes(),
    }  # fmt: skip
    registry.push("guest:1", files)
    image = f"{registry.host}/guest:1"
    auth = json.dumps({"auths": {registry.host: {"username": "u", "password": "p"}}})
    for kind, name, body in (
        ("ConfigMap", "conf", {"data": {"app.conf": "port = 80"}, "binaryData": {"b.bin": encoded("binary")}}),
        ("Secret", "keys", {"stringData": {"password": "s3cret"}}),
        ("ConfigMap", "answers", {"data": {"autounattend.xml": "<unattend/>"}}),
        ("Secret", "pull", {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": auth}}),
    ):
        home.apply({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **body})
    home.apply_claim("base", "16Mi")
    home.wait("pvc/base", "jsonpath={.status.phase}=Bound")
    (held,) = (home.directory / "volumes").glob("*/disk.img")
    with held.open("r+b") as file:
        file.write(b"what the claim holds\n")
    volumes = {
        "image": {"containerDisk": {"image": image, "imagePullSecret": "pull"}},
        "conf": {"configMap": {"name": "conf", "volumeLabel": "settings"}},
        "keys": {"secret": {"secretName": "keys"}},
        "account": {"serviceAccount": {"serviceAccountName": "default"}},
        "pod": {"downwardAPI": {"fields": [{"path": "d/app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]}},
        "answers": {"sysprep": {"configMap": {"name": "answers"}}},
        "drive": {"cloudInitConfigDrive": {"userData": "#cloud-config", "networkData": '{"links": []}'}},
        "held": {"ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
        "none": {"configMap": {"name": "nobody", "optional": True}},
    }
    container = {"image": image, "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd", "imagePullSecret": "pull"}
    home.apply_vm("many", extra={
        "domain": {"firmware": {"kernelBoot": {"container": container, "kernelArgs": arguments}}},
        "devices": {"disks": [{"name": each, "serial": each, "disk": {"bus": "virtio"}} for each in volumes]},
        "spec": {"volumes": [{"name": name, **source} for name, source in volumes.items()]},
    })  # fmt: skip
    home.wait("vm/many", "jsonpath={.status.created}=true")
    home.wait("vmi/many", "jsonpath={.status.phase}=Running")
    script = encoded(LOOK)
    with home.console("many") as console:
        # All drivers are there when the shell is, be the agent there or not.
        console.type("\n")
        console.read_until("# ")
        console.type(
            f"\necho {script[:700]} >/tmp/s\necho {script[700:]} >>/tmp/s\ntr -d '\\n' </tmp/s | base64 -d | sh\n"
        )
        said = console.read_until("LOOKED-AROUND")
    seen = {}
    for line in said.replace("\r", "").splitlines():
        name, bar, rest = line.partition("|")
        if name.startswith("=") and bar:
            what, _, value = rest.partition("|")
            seen.setdefault(name[1:], {})[what] = value
    token = seen["account"].pop("./token")
    assert token.startswith("eyJ")
    assert seen["account"].pop("./ca.crt") == "-----BEGIN CERTIFICATE-----"
    meta = seen["drive"].pop("./openstack/latest/meta_data.json")
    assert meta.startswith('{"hostname": "many"')
    assert seen == {
        "image": {"raw": MARK.decode().strip()},
        "conf": {"label": "settings", "./app.conf": "port = 80", "./b.bin": "binary"},
        "keys": {"label": "cfgdata", "./password": "s3cret"},
        "account": {"label": "cfgdata", "./namespace": "default"},
        "pod": {"label": "cfgdata", "./d/app": "many"},
        "answers": {"label": "unattendCD", "./autounattend.xml": "<unattend/>"},
        "drive": {"label": "config-2", "./openstack/latest/user_data": "#cloud-config",
                  "./openstack/latest/network_data.json": '{"links": []}'},
        "held": {"raw": "what the claim holds"},
        "none": {"label": "cfgdata"},
    }  # fmt: skip
    assert held.read_bytes().startswith(b"what the claim holds\n"), "the guest wrote above it only"
    events = home.kubectl_json("get", "events", "--field-selector", "involvedObject.name=many")["items"]
    assert {"Pulling", "Pulled"} <= {event["reason"] for event in events}

    home.apply_vm("lacking", image=f"{registry.host}/other:1")
    home.wait_message("vmi/lacking", "authentication required")
    failing = ("ErrImagePull", "ImagePullBackOff")
    home.wait_until(
        "the VM says that its image does not come",
        lambda: home.kubectl_json("get", "vm", "lacking")["status"]["printableStatus"] in failing,
    )

    assert f"{image} " in home.hotvirt("images", "list").stdout
    used = json.loads(home.hotvirt("images", "prune", "-o", "json").stdout)
    assert [each["disk_format"] for each in used] in ([], [""]), "the disk is open; a kernel is not, once it runs"
    home.kubectl("delete", "vm", "many", "--timeout=60s")
    home.wait_until(
        "the image removed", lambda: "images removed" in home.hotvirt("images", "prune").stdout
        and image not in home.hotvirt("images", "list").stdout,
    )  # fmt: skip
