"""Data volumes of a home: every source and format ends as the very disk it was, and what cannot says why."""

import contextlib
import gzip
import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path

import image_server
import pytest
from data_volumes import (
    CDI,
    MIB,
    SIZE,
    backing,
    content,
    data_volume,
    done,
    pattern,
    phase,
    run,
    says,
    token_of,
    upload,
)

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]


def test_every_format_becomes_the_disk_that_it_was(shared, packed):
    home, images = shared
    for form, data in packed.items():
        home.apply(data_volume(f"f-{form.replace('.', '-')}", {"http": {"url": images.put(form, data)}}))
    home.apply(data_volume("f-blank", {"blank": {}}))
    names = [f"f-{form.replace('.', '-')}" for form in packed]
    done(home, *names, "f-blank")
    wanted = hashlib.sha256(pattern()).hexdigest()
    assert {name: hashlib.sha256(content(home, name)).hexdigest() for name in names} == dict.fromkeys(names, wanted)
    assert content(home, "f-blank") == bytes(SIZE)
    for name in names:
        volume = home.kubectl_json("get", "pvc", name)["spec"]["volumeName"]
        (disk,) = (home.directory / "volumes" / volume).glob("disk.*")
        assert disk.stat().st_blocks * 512 < 8 * MIB, f"{name} is sparse"
        assert not (home.directory / "volumes" / volume / "work").exists()
    found = home.conditions("dv/f-qcow2")
    assert [(found[kind]["status"], found[kind].get("reason")) for kind in ("Bound", "Running", "Ready")] == [
        ("True", "Bound"), ("False", "Completed"), ("True", None),
    ]  # fmt: skip
    assert ["f-raw", "Succeeded", "100.0%", "0"] in [row[:4] for row in home.table("get", "dv")]


def test_a_data_volume_is_refused_with_what_to_write_instead(shared):
    home, _ = shared
    for source, words in (
        ({"s3": {"url": "s3://x"}}, "spec.source.s3: "),
        ({"http": {"url": "ftp://x"}}, "spec.source.http.url: "),
        ({}, "spec: "),
        ({"blank": {}, "upload": {}}, "has blank and upload"),
        ({"http": {"url": "http://x", "checksum": "sha256:1"}}, "checksum"),
    ):
        done = home.kubectl("apply", "-f", "-", check=False, text=json.dumps(data_volume("no", source)))
        assert done.returncode, done.stdout
        assert words in done.stderr
    no_size = data_volume("no", {"blank": {}}, size=0)
    assert "PVC size is missing" in home.kubectl("apply", "-f", "-", check=False, text=json.dumps(no_size)).stderr


def test_what_is_wrong_with_an_image_is_said_and_ends_it(shared, packed, tmp_path):
    home, images = shared
    evil = tmp_path / "evil"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", evil)
    bomb = gzip.compress(bytes(400 * MIB), 1)
    home.apply(data_volume("e-backing", {"http": {"url": images.put("evil", evil)}}))
    home.apply(data_volume("e-bomb", {"http": {"url": images.put("bomb", bomb)}}))
    home.apply(data_volume("e-large", {"http": {"url": images.put("large", packed["qcow2"])}}, size=SIZE // 2))
    says(home, "e-backing", "it names another file as its backing file")
    says(home, "e-bomb", "it unpacks to more than")
    says(home, "e-large", f"Virtual image size {SIZE} is larger than the reported available storage {SIZE // 2}")
    for name in ("e-backing", "e-bomb", "e-large"):
        assert phase(home, name) == "Failed"
        assert home.kubectl_json("get", "pvc", name)["status"]["phase"] == "Pending", "nothing is offered"


def test_what_is_wrong_with_a_server_is_said_and_tried_again(shared, packed):
    home, images = shared
    good = hashlib.sha256(packed["raw"]).hexdigest()
    images.cut["early"] = 9 * MIB
    images.changes.add("moving")
    images.cut["moving"] = 5 * MIB
    images.put("sum", packed["raw"][:-1] + b"x")
    home.apply(data_volume("s-early", {"http": {"url": images.put("early", packed["raw"])}}))
    home.apply(data_volume("s-moving", {"http": {"url": images.put("moving", packed["raw"])}}))
    home.apply(data_volume("s-sum", {"http": {"url": f"{images.url}/sum", "checksum": f"sha256:{good}"}}))
    home.apply(data_volume("s-none", {"http": {"url": f"{images.url}/none"}}))
    says(home, "s-none", "the server has no such file (404)")
    says(home, "s-sum", f"its sha256 is {hashlib.sha256(images.files['sum']).hexdigest()} and should be {good}")
    events = home.messages("pvc/s-early")
    ended = re.search(r"ended too early, after (\d+) bytes", events)
    assert ended, events
    images.files["sum"] = packed["raw"]  # somebody mends it
    done(home, "s-early", "s-moving", "s-sum")
    assert content(home, "s-early") == content(home, "s-sum") == packed["raw"]
    ranges = [int(asked[len("bytes=") : -1]) for name, asked in images.asked if name == "early" and asked]
    assert ranges[:1] == [int(ended[1])], "it goes on where it ended"
    assert 0 < ranges[0] <= 9 * MIB
    assert "changed while it was read" in home.messages("pvc/s-moving")
    assert content(home, "s-moving")[:-1] == packed["raw"][:-1]
    assert int(home.kubectl("get", "dv", "s-early", "-o", "jsonpath={.status.restartCount}").stdout) == 1
    home.kubectl("delete", "dv", "s-none", "--wait=false")


def test_https_with_a_password_and_an_authority(shared, packed, tmp_path):
    home, _ = shared
    key, certificate = tmp_path / "key", tmp_path / "crt"
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=images", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
    )  # fmt: skip
    with image_server.serve(certificate=(certificate, key)) as images:
        images.password = "Basic dTpw"  # u:p
        url = images.put("raw", packed["raw"])
        home.apply(data_volume("t-untrusted", {"http": {"url": url}}))
        says(home, "t-untrusted", "its certificate is not trusted")
        home.kubectl("create", "configmap", "authority", f"--from-file=ca.pem={certificate}")
        home.kubectl("create", "secret", "generic", "login", "--from-literal=accessKeyId=u",
                     "--from-literal=secretKey=p")  # fmt: skip
        home.apply(data_volume("t-nobody", {"http": {"url": url, "certConfigMap": "authority"}}))
        says(home, "t-nobody", "name them in secretRef")
        http = {"url": url, "certConfigMap": "authority", "secretRef": "login"}
        home.apply(data_volume("t-good", {"http": http}))
        done(home, "t-good")
        for name in ("t-untrusted", "t-nobody"):
            home.kubectl("delete", "dv", name, "--wait=false")
    assert content(home, "t-good") == packed["raw"]


def test_the_disk_of_a_container_image(shared, packed, registry):
    home, _ = shared
    registry.push("disks/one", {"disk/disk.qcow2": packed["qcow2"]})
    image = {"url": f"docker://{registry.host}/disks/one:latest"}
    home.apply(data_volume("r-nobody", {"registry": image}))
    says(home, "r-nobody", f"image {registry.host}/disks/one")
    home.kubectl("create", "secret", "generic", "registry", "--from-literal=accessKeyId=u",
                 "--from-literal=secretKey=p")  # fmt: skip
    home.apply(data_volume("r-one", {"registry": {**image, "secretRef": "registry"}}))
    done(home, "r-one")
    assert content(home, "r-one") == packed["raw"]
    home.kubectl("delete", "dv", "r-nobody", "--wait=false")


def test_volumes_that_a_person_made_and_populators(shared, packed):
    home, images = shared
    place = home.directory / "by-hand"
    place.mkdir()
    (place / "disk.img").write_bytes(packed["raw"])
    made = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "by-hand"},
        "spec": {
            "capacity": {"storage": "24Mi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": str(place)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}]}},
        },
    }  # fmt: skip
    home.apply(made)
    home.wait("pv/by-hand", "jsonpath={.status.phase}=Available")
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "by-hand"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
                 "resources": {"requests": {"storage": "8Mi"}}},
    }  # fmt: skip
    home.apply(claim)
    home.wait("pvc/by-hand", "jsonpath={.status.phase}=Bound")
    home.kubectl("delete", "pv", "by-hand", "--wait=false")
    assert home.kubectl_json("get", "pv", "by-hand")["status"]["phase"] == "Bound", "bound, so it stays"
    home.kubectl("delete", "pvc", "by-hand")
    home.wait_until("it goes with its claim", lambda: home.kubectl("get", "pv", "by-hand", check=False).returncode)
    assert (place / "disk.img").read_bytes() == packed["raw"], "the file is the person's"

    source = {"apiVersion": CDI, "kind": "VolumeImportSource", "metadata": {"name": "it"},
              "spec": {"source": {"http": {"url": images.put("it", packed["qcow2"])}}}}  # fmt: skip
    home.apply(source)
    for name, reference in (
        ("p-import", {"apiGroup": "cdi.kubevirt.io", "kind": "VolumeImportSource", "name": "it"}),
        ("p-copy", {"kind": "PersistentVolumeClaim", "name": "p-import"}),
    ):
        spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "hotvirt-directory", "volumeMode": "Block",
                "dataSourceRef": reference, "resources": {"requests": {"storage": "24Mi"}}}  # fmt: skip
        home.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})
        home.wait(f"pvc/{name}", "jsonpath={.status.phase}=Bound")
        assert content(home, name) == packed["raw"]
    told = home.kubectl_json("get", "csistoragecapacities", "-n", "kubevirt")["items"]
    assert {each["storageClassName"] for each in told} == {"hotvirt-directory", "hotvirt-directory-wait"}


def test_copies_of_claims_share_what_they_have_in_common(shared, packed):
    home, images = shared
    home.apply(data_volume("golden", {"http": {"url": images.put("golden", packed["qcow2"])}}))
    done(home, "golden")
    source = {"apiVersion": CDI, "kind": "DataSource", "metadata": {"name": "newest"},
              "spec": {"source": {"pvc": {"name": "golden", "namespace": "default"}}}}  # fmt: skip
    home.apply(source)
    home.wait("datasource/newest", "condition=Ready")
    home.apply(data_volume("c-one", {"pvc": {"name": "golden", "namespace": "default"}}, size=0))
    by_ref = data_volume("c-two", {}, size=2 * SIZE)
    by_ref["spec"] = {"sourceRef": {"kind": "DataSource", "name": "newest"}, "storage": by_ref["spec"]["storage"]}
    home.apply(by_ref)
    done(home, "c-one", "c-two")
    assert content(home, "c-one") == content(home, "golden") == packed["raw"]
    assert content(home, "c-two") == packed["raw"] + bytes(SIZE)
    below = {backing(home, name) for name in ("golden", "c-one", "c-two")}
    assert len(below) == 1, "stored once"
    base = Path(below.pop())
    assert base.parent.parent == home.directory / "volumes" / ".bases"
    copy = data_volume("c-small", {"pvc": {"name": "golden", "namespace": "default"}}, size=SIZE // 2)
    home.apply(copy)
    says(home, "c-small", "target resources requests storage size is smaller than the source")
    home.kubectl("patch", "storageprofile", "hotvirt-directory", "--type=merge", "-p",
                 '{"spec": {"cloneStrategy": "copy"}}')  # fmt: skip
    home.apply(data_volume("c-apart", {"pvc": {"name": "golden", "namespace": "default"}}, size=0))
    done(home, "c-apart")
    assert content(home, "c-apart") == packed["raw"]
    home.kubectl("patch", "storageprofile", "hotvirt-directory", "--type=merge", "-p",
                 '{"spec": {"cloneStrategy": null}}')  # fmt: skip
    home.kubectl("delete", "dv", "c-one", "c-two", "golden")
    home.wait_until("the base is gone with the last that needs it", lambda: not base.exists())


def test_copying_another_namespaces_claim_needs_leave_there(shared):
    home, _ = shared
    home.apply(data_volume("theirs", {"blank": {}}))
    done(home, "theirs")
    home.kubectl("create", "namespace", "mine")
    home.kubectl("create", "rolebinding", "me", "--clusterrole=edit", "--user=me", "-n", "mine")
    copy = data_volume("theft", {"pvc": {"name": "theirs", "namespace": "default"}}, size=0)
    copy["metadata"]["namespace"] = "mine"
    asked = ("apply", "--as=me", "-f", "-")
    refused = home.kubectl(*asked, check=False, text=json.dumps(copy))
    assert "User me has insufficient permissions in clone source namespace default" in refused.stderr
    home.kubectl("create", "rolebinding", "me", "--clusterrole=cdi.kubevirt.io:edit", "--user=me")
    home.kubectl(*asked, text=json.dumps(copy))
    home.kubectl("wait", "-n", "mine", "dv/theft", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")


# Uploads


def test_uploads(shared, packed, tmp_path):
    home, _ = shared
    home.apply(data_volume("u-one", {"upload": {}}))
    home.apply(data_volume("u-two", {"upload": {}}))
    home.apply(data_volume("u-three", {"upload": {}}))
    for name in ("u-one", "u-two", "u-three"):
        home.wait(f"dv/{name}", "jsonpath={.status.phase}=UploadReady")
    token = token_of(home, "u-one")
    assert upload(home, "none", packed["qcow2"])[0] == 401
    assert upload(home, token, None, path="upload-async", method="HEAD")[0] == 200
    evil = tmp_path / "evil"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", evil)
    code, text = upload(home, token, evil.read_bytes())
    assert (code, "it names another file as its backing file" in text) == (400, True)
    home.wait("dv/u-one", "jsonpath={.status.phase}=UploadReady")
    half_an_upload(home, token, packed["raw"])
    assert upload(home, token, packed["qcow2"]) == (200, ""), "another try is good"
    done(home, "u-one")
    assert content(home, "u-one") == packed["raw"]
    assert upload(home, token, packed["qcow2"])[0] == 503, "there is nothing to upload into any more"
    assert upload(home, token_of(home, "u-two"), packed["raw.gz"], path="upload-async") == (200, "")
    in_chunks = (packed["raw"][begin : begin + 50_000] for begin in range(0, SIZE, 50_000))
    assert upload(home, token_of(home, "u-three"), in_chunks) == (200, ""), "its size is not said beforehand"
    done(home, "u-two", "u-three")
    for name in ("u-two", "u-three"):
        assert content(home, name) == packed["raw"]
    home.apply_claim("u-none", "1Mi")
    path = "/apis/upload.cdi.kubevirt.io/v1beta1/namespaces/default/uploadtokenrequests"
    asked = {"spec": {"pvcName": "u-none"}}
    refused = home.kubectl("create", "--raw", path, "-f", "-", text=json.dumps(asked), check=False)
    assert "does not wait for an upload" in refused.stderr


def half_an_upload(home, token, data):
    """As by a client that is killed."""
    status = home.kubectl_json("get", "cdiconfig", "config")["status"]
    host, port = status["uploadProxyURL"].removeprefix("https://").split(":")
    context = ssl.create_default_context(cadata=status["uploadProxyCA"])
    with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as connection:
        head = ("POST /v1beta1/upload HTTP/1.1", "Host: x", f"Authorization: Bearer {token}",
                f"Content-Length: {len(data)}", "", "")  # fmt: skip
        connection.sendall("\r\n".join(head).encode() + data[: len(data) // 2])
        time.sleep(0.2)


def test_the_clis_upload(shared, packed, tmp_path):
    home, _ = shared
    image = tmp_path / "image.qcow2"
    image.write_bytes(packed["qcow2"])
    home.hotvirt("image-upload", "dv", "v-ours", f"--size={SIZE}", f"--image-path={image}", "--force-bind")
    assert content(home, "v-ours") == packed["raw"]
    virtctl = Path(os.environ.get("HOTVIRT_VIRTCTL", "virtctl"))
    with contextlib.suppress(FileNotFoundError):
        argv = [virtctl, "image-upload", "dv", "v-real", f"--size={SIZE}", f"--image-path={image}", "--insecure",
                "--force-bind"]  # fmt: skip
        subprocess.run(argv, env=home.env, check=True, capture_output=True, timeout=120)
        assert content(home, "v-real") == packed["raw"]
