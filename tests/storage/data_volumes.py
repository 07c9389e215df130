"""What tests of data volumes have in common: a home beside a server of images, one disk in every form, and objects."""

import gzip
import json
import lzma
import random
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import image_server
import pytest
from guest_homes import Home

MIB = 1 << 20
SIZE = 24 * MIB
CDI = "cdi.kubevirt.io/v1beta1"
FORMATS = ("qcow2", "vmdk", "vdi", "vhdx")


def pattern(seed=1, size=SIZE):
    """Data at both ends and holes in between."""
    data = random.Random(seed).randbytes(3 * MIB)
    return data + bytes(size - len(data) - 4096) + data[:4096]


@pytest.fixture(scope="module")
def shared():
    """A home and a server of images."""
    directory = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))
    home = Home(directory)
    try:
        home.up()
        with image_server.serve() as images:
            yield home, images
    finally:
        home.down("--grace=0")
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """One disk in every form that is taken."""
    folder = tmp_path_factory.mktemp("images")
    raw = folder / "disk.raw"
    raw.write_bytes(pattern())
    for kind in FORMATS:
        options = ["-o", "subformat=streamOptimized"] if kind == "vmdk" else []
        run("qemu-img", "convert", "-f", "raw", "-O", kind, *options, raw, folder / f"disk.{kind}")
    forms = {kind: (folder / f"disk.{kind}").read_bytes() for kind in FORMATS}
    forms |= {"raw": pattern(), "raw.gz": gzip.compress(pattern(), 1), "qcow2.xz": lzma.compress(forms["qcow2"])}
    forms["raw.zst"] = run("zstd", "-qc", raw)
    return forms


def run(*argv):
    return subprocess.run([str(each) for each in argv], check=True, capture_output=True).stdout


def data_volume(name, source, *, size=SIZE, annotations=None, storage_class="hotvirt-directory"):
    storage = {"resources": {"requests": {"storage": str(size)}}} if size else {}
    if storage_class:
        storage["storageClassName"] = storage_class
    return {
        "apiVersion": CDI, "kind": "DataVolume", "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"source": source, "storage": storage},
    }  # fmt: skip


def done(home, *names):
    home.wait_until(f"{names} are filled", lambda: {phase(home, name) for name in names} == {"Succeeded"})


def phase(home, name):
    return home.kubectl("get", "dv", name, "-o", "jsonpath={.status.phase}").stdout


def content(home, name):
    """What a guest would read, through all that is below the disk."""
    claim = home.kubectl_json("get", "pvc", name)
    directory = home.directory / "volumes" / claim["spec"]["volumeName"]
    (disk,) = directory.glob("disk.*")
    flat = directory.with_name(f"flat-{name}")
    run("qemu-img", "convert", "-f", "raw" if disk.suffix == ".img" else "qcow2", "-O", "raw", disk, flat)
    try:
        return flat.read_bytes()
    finally:
        flat.unlink()


def backing(home, name):
    """The file below a claim's disk."""
    claim = home.kubectl_json("get", "pvc", name)
    disk = home.directory / "volumes" / claim["spec"]["volumeName"] / "disk.qcow2"
    return json.loads(run("qemu-img", "info", "--output=json", disk))["backing-filename"]


def said(home, name):
    return home.conditions(f"dv/{name}").get("Running", {}).get("message", "")


def says(home, name, text):
    home.wait_until(f"data volume {name} says {text!r}", lambda: text in said(home, name))


def token_of(home, claim, namespace="default"):
    request = {"apiVersion": "upload.cdi.kubevirt.io/v1beta1", "kind": "UploadTokenRequest",
               "metadata": {"name": claim}, "spec": {"pvcName": claim}}  # fmt: skip
    path = f"/apis/upload.cdi.kubevirt.io/v1beta1/namespaces/{namespace}/uploadtokenrequests"
    answer = home.kubectl("create", "--raw", path, "-f", "-", text=json.dumps(request))
    return json.loads(answer.stdout)["status"]["token"]


def upload(home, token, data, *, path="upload", method="POST"):
    status = home.kubectl_json("get", "cdiconfig", "config")["status"]
    context = ssl.create_default_context(cadata=status["uploadProxyCA"])
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
    url = f"{status['uploadProxyURL']}/v1beta1/{path}"
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, context=context, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
