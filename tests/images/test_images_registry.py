"""Images of registries: names, manifests, layers of any malice, what is kept; and pulls from a real registry."""

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from hotvirt.api.datavolumes import Request
from hotvirt.images import pulled, reference, registry, unpack
from hotvirt.images.errors import CorruptImage, ImageError, UnsafeImage
from hotvirt.kube.errors import NotFound
from hotvirt.node import importsources

MIB = 1 << 20
DIRTYPE, SYMTYPE, LNKTYPE, BLKTYPE, FIFOTYPE = (
    each.decode() for each in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
)


# Names

NAMES = {
    "quay.io/a/b:1": ("quay.io", "a/b", "1", "", "IfNotPresent"),
    "quay.io/a/b": ("quay.io", "a/b", "latest", "", "Always"),
    "quay.io/a/b:latest": ("quay.io", "a/b", "latest", "", "Always"),
    "localhost/x": ("localhost", "x", "latest", "", "Always"),
    "127.0.0.1:5000/x:v1.2_3": ("127.0.0.1:5000", "x", "v1.2_3", "", "IfNotPresent"),
    f"r.example/x@sha256:{'a' * 64}": ("r.example", "x", "latest", f"sha256:{'a' * 64}", "IfNotPresent"),
    f"r.example:1/x:2@sha256:{'a' * 64}": ("r.example:1", "x", "2", f"sha256:{'a' * 64}", "IfNotPresent"),
}


@pytest.mark.parametrize(("name", "parts"), NAMES.items(), ids=NAMES)
def test_a_name_with_a_host(name, parts):
    found = reference.parse(name)
    assert reference.is_of_registry(name)
    assert (found.host, found.repository, found.tag, found.digest, found.policy) == parts


@pytest.mark.parametrize("name", ["hotvirt/debian:12", "local/x", "tiny", "library/x", "hotvirt/tiny:latest"])
def test_a_name_without_a_host_is_this_machines(name):
    assert not reference.is_of_registry(name)


@pytest.mark.parametrize(
    "name", ["quay.io/", "quay.io/A", "quay.io/a//b", "quay.io/a:", "quay.io/a:-x", "quay.io/a@sha256:1",
             "-quay.io/a", "quay.io/../a", "quay.io/a b", "q.io:999999/a"]
)  # fmt: skip
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match="is no image name"):
        reference.parse(name)


def test_plain_http_is_for_this_machines_own_registries():
    assert [reference.parse(f"{host}/x").is_loopback for host in ("localhost:1", "127.0.0.9", "10.0.0.1", "a.b")] == [
        True, True, False, False,
    ]  # fmt: skip


# Layers


def layer(*members, pack=gzip.compress):
    """A tar of (name, content, or a type as text, link)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content, *link in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content.encode(), link[0] if link else ""
                archive.addfile(info)
    return pack(out.getvalue())


@pytest.fixture
def take(tmp_path):
    def unpacked(*layers, wanted=(), packing="gzip", limit=1 << 30, digest=None):
        given = []
        for number, content in enumerate(layers):
            path = tmp_path / f"layer{number}"
            path.write_bytes(content)
            digest = digest or f"sha256:{hashlib.sha256(content).hexdigest()}"
            given.append({"path": str(path), "digest": digest, "packing": packing})
            digest = None
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        found = unpack.unpack({"layers": given, "wanted": [*wanted], "out": str(out), "limit": limit})
        assert set(os.listdir(tmp_path)) <= {"out", *(f"layer{n}" for n in range(9))}, "nothing lands elsewhere"
        return {path: (out / name).read_bytes() for path, name in found.items()}

    return unpacked


def test_the_disk_is_the_one_file_below_disk(take):
    content = b"a" * 100 + bytes(3 * MIB) + b"b"
    members = (("etc/passwd", b"x"), ("./disk/", DIRTYPE), ("disk/a.qcow2", content))
    assert take(layer(*members)) == {"/disk/a.qcow2": content}
    assert take(layer(*members, pack=bytes), packing="") == {"/disk/a.qcow2": content}


def test_zeros_take_no_room(take, tmp_path):
    take(layer(("disk/a", bytes(64 * MIB))))
    assert (tmp_path / "out" / "file-1").stat().st_blocks == 0


def test_zstd(take):
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    packed = subprocess.run(["zstd", "-q"], input=layer(("disk/a", b"x"), pack=bytes), capture_output=True, check=True)
    assert take(packed.stdout, packing="zstd") == {"/disk/a": b"x"}
    with pytest.raises(unpack.Refused, match="not what its digest"):
        take(packed.stdout, packing="zstd", digest="sha256:" + "0" * 64)


def test_files_by_their_paths(take):
    both = layer(("boot/vmlinuz", b"k"), ("boot/initrd", b"i"), ("disk/a", b"d"))
    assert take(both, wanted=["/boot/vmlinuz", "/boot/initrd"]) == {"/boot/vmlinuz": b"k", "/boot/initrd": b"i"}
    with pytest.raises(
        unpack.Refused, match=r"it has no file /boot/kernel; it has /boot/initrd, /boot/vmlinuz, /disk/a"
    ):
        take(both, wanted=["/boot/kernel"])


def test_upper_layers_replace_and_hide(take):
    below = layer(("disk/a", b"old"))
    assert take(below, layer(("disk/a", b"new"))) == {"/disk/a": b"new"}
    assert take(below, layer(("disk/.wh.a", b""), ("disk/b", b"new"))) == {"/disk/b": b"new"}
    assert take(below, layer(("disk/.wh..wh..opq", b""), ("disk/b", b"new"))) == {"/disk/b": b"new"}
    assert take(below, layer((".wh.disk", b"")), layer(("disk/b", b"new"))) == {"/disk/b": b"new"}


HOSTILE = {
    "none": ([("etc/x", b"")], "it has no disk"),
    "two": ([("disk/a", b""), ("disk/b", b"")], r"has 2 files in /disk \(/disk/a, /disk/b\): name the disk with path"),
    "many": ([(f"disk/{n}", b"") for n in range(20)], "more than 16 files"),
    "a link": ([("disk/a", SYMTYPE, "/etc/shadow")], "is a symbolic link"),
    "a hard link": ([("disk/a", LNKTYPE, "../../etc/shadow")], "is a hard link"),
    "a device": ([("disk/a", BLKTYPE)], "is a special file"),
    "a pipe": ([("disk/a", FIFOTYPE)], "is a special file"),
    "a path that climbs": ([("disk/../../../../tmp/a", b"x")], "it has no disk"),
    "a path that climbs into it": ([("x/../disk/a", b"x")], "it has no disk"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "why"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_layers(members, why, take):
    with pytest.raises(unpack.Refused, match=why):
        take(layer(*members))


def test_an_absolute_path_lands_in_our_directory(take):
    assert take(layer(("/disk/a", b"x"))) == {"/disk/a": b"x"}


def test_a_layer_that_was_changed(take):
    with pytest.raises(unpack.Refused, match="not what its digest"):
        take(layer(("disk/a", b"x")), digest="sha256:" + "0" * 64)
    with pytest.raises(gzip.BadGzipFile):
        take(layer(("disk/a", b"x")) + b"more", digest=f"sha256:{hashlib.sha256(layer(('disk/a', b'x'))).hexdigest()}")


def test_a_bomb(take):
    with pytest.raises(unpack.Refused, match="unpack to more"):
        take(layer(("x", bytes(64 * MIB))), limit=MIB)


def test_a_sparse_file_of_any_size(take):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("x"))
    header = bytearray(out.getvalue()[:512])
    header[0:7], header[156:157] = b"disk/a\0", b"S"
    header[386:398], header[398:410] = b"00000000000\0", b"00000000000\0"
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    with pytest.raises(unpack.Refused, match="claims 8589934591 bytes"):
        take(gzip.compress(bytes(header) + bytes(1024)))


DAMAGED = {
    "nothing": b"", "junk": b"junk" * 1000, "packed junk": gzip.compress(b"junk" * 1000),
    "cut short": layer(("disk/a", b"x"))[:40],
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_layers_are_said_to_be(content, tmp_path, capsys, monkeypatch):
    (tmp_path / "l").write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    asked = {"layers": [{"path": str(tmp_path / "l"), "digest": digest, "packing": "gzip"}], "wanted": [],
             "out": str(tmp_path), "limit": MIB}  # fmt: skip
    monkeypatch.setattr("sys.argv", ["unpack", json.dumps(asked)])
    unpack.main()
    assert "error" in json.loads(capsys.readouterr().out)


# Manifests

DIGEST = "sha256:" + "a" * 64


def manifest(kind="application/vnd.oci.image.layer.v1.tar+gzip", digest=DIGEST, size=5):
    return json.dumps({"layers": [{"mediaType": kind, "digest": digest, "size": size}]}).encode()


KINDS = {
    "application/vnd.oci.image.layer.v1.tar": "", "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip", "application/vnd.docker.image.rootfs.diff.tar": "",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "packing"), KINDS.items(), ids=KINDS)
def test_layers_of_a_manifest(kind, packing):
    assert registry.read_manifest(manifest(kind), DIGEST, "x").layers == ((DIGEST, packing, 5),)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"layers": []}', b'{"layers": 3}', manifest("application/x"),
            manifest(digest="sha256:../../etc"), manifest(digest="md5:1"), manifest(size=-1), manifest(size="9")]
)  # fmt: skip
def test_manifests_that_are_none(raw):
    with pytest.raises(CorruptImage):
        registry.read_manifest(raw, DIGEST, "x")


def test_of_several_platforms_ours_is_taken():
    entries = [{"digest": f"sha256:{a}", "platform": {"os": "linux", "architecture": a}} for a in ("arm64", "amd64")]
    assert registry.one_of_list(json.dumps({"manifests": entries}).encode(), "x") == "sha256:amd64"
    assert registry.one_of_list(manifest(), "x") is None
    with pytest.raises(ImageError, match="for other platforms only"):
        registry.one_of_list(json.dumps({"manifests": entries[:1]}).encode(), "x")


def test_the_registrys_words():
    complaint = r'skopeo failed (exit code 1): time="t" level=fatal msg="reading manifest x: \"manifest\" unknown"'
    assert registry.said(complaint) == 'reading manifest x: "manifest" unknown'
    parsing = r'level=fatal msg="Error parsing image name \"docker://a:1/b:1\": reading manifest 1: unknown"'
    assert registry.said(parsing) == "reading manifest 1: unknown"
    assert registry.said("skopeo did not finish within 60 s") == "skopeo did not finish within 60 s"


# What is kept


def keep(cache, digest, *, size, age):
    directory = cache / "registry" / digest / "disk"
    directory.mkdir(parents=True)
    (directory / "file-1").write_bytes(b"x" * size)
    facts = {"name": f"r.io/{digest}", "digest": f"sha256:{digest}", "files": {"/disk/a": "file-1"}, "disk": "file-1"}
    (directory / "manifest.json").write_text(json.dumps(facts))
    os.utime(directory / "manifest.json", (time.time() - age,) * 2)
    return directory


def test_what_was_unused_for_longest_goes_first(tmp_path):
    for name, age in (("a", 9000), ("b", 8000), ("c", 7000)):
        keep(tmp_path, name, size=MIB, age=age)
    total = sum(each.size_on_disk for each in pulled.kept(tmp_path))
    assert [each.name for each in pulled.prune(tmp_path, limit=total - 1)] == ["r.io/a"]
    assert not (tmp_path / "registry" / "a").exists()
    assert pulled.prune(tmp_path, limit=total) == []
    assert [each.name for each in pulled.prune(tmp_path)] == ["r.io/b", "r.io/c"]


def test_what_is_in_use_stays(tmp_path, monkeypatch):
    keep(tmp_path, "a", size=MIB, age=9000)
    keep(tmp_path, "new", size=MIB, age=1)
    monkeypatch.setattr(pulled, "in_use", lambda image: image.name == "r.io/a")
    assert pulled.prune(tmp_path) == []


# A real registry


@contextlib.contextmanager
def serving(folder, **tls):
    """Debian's registry on a port of this machine. `tls`: certificate and key."""
    missing = [tool for tool in ("docker-registry", "skopeo", "qemu-img") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: scripts/setup --dev")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {"version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}}}
    settings |= {
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "http": {"addr": host, "tls": tls},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    process = subprocess.Popen(
        ["docker-registry", "serve", str(folder / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((host.split(":")[0], int(host.split(":")[1])), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the registry ended"
                assert time.monotonic() < deadline, "the registry does not answer"
                time.sleep(0.05)
        yield host, folder
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def private(tmp_path):
    """One whose certificate no authority of this machine has signed, and its authority's."""
    key, certificate = tmp_path / "key", tmp_path / "crt"
    subject = ["-subj", "/CN=images", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*command, "-days", "2", *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served", certificate=str(certificate), key=str(key)) as found:
        yield found, certificate.read_text()


class Registry(BaseHTTPRequestHandler):
    """A registry whose one image has an honest layer, and one that says to be of a few bytes: `size` of it are sent,
    and then nothing until it has `ended`."""

    honest: bytes
    size: int
    ended: threading.Event
    sent = 0

    def do_GET(self):
        kind = self.path.split("/")[-2] if self.path.count("/") > 2 else ""
        content = self.manifest() if kind == "manifests" else b"{}"
        if self.path.endswith(hashlib.sha256(self.honest).hexdigest()):
            content = self.honest
        if self.path.endswith("0" * 64):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(self.size // MIB):
                    self.wfile.write(os.urandom(MIB))
                    type(self).sent += MIB
                self.ended.wait(60)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def manifest(self):
        each = "application/vnd.oci.image.layer.v1.tar+gzip"
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2,
                  "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}"}  # fmt: skip
        layers = [{"mediaType": each, "size": len(self.honest),
                   "digest": f"sha256:{hashlib.sha256(self.honest).hexdigest()}"},
                  {"mediaType": each, "size": 10, "digest": f"sha256:{'0' * 64}"}]  # fmt: skip
        return json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": config, "layers": layers}).encode()  # fmt: skip

    def log_message(self, *_):
        pass


@pytest.fixture(params=[(10, 100 * MIB), (10 * MIB, 20 * MIB)], ids=["a layer", "all of it"])
def lying(request):
    """A layer that is larger than any of the image's, or that makes the image larger than it is."""

    class Handler(Registry):
        honest, size = os.urandom(request.param[0]), request.param[1]
        ended = threading.Event()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", Handler
    Handler.ended.set()
    server.shutdown()
    server.server_close()
    thread.join()


def push(server, name, *layers):
    """An OCI image of these layers."""
    host, folder = server
    layout = folder / f"layout-{name.replace(':', '-')}"
    blobs = layout / "blobs" / "sha256"
    shutil.rmtree(layout, ignore_errors=True)
    blobs.mkdir(parents=True)

    def blob(content, kind):
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    diffs = [f"sha256:{hashlib.sha256(gzip.decompress(each)).hexdigest()}" for each in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}}
    document = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": blob(json.dumps(config).encode(), "config.v1+json"),
                "layers": [blob(each, "layer.v1.tar+gzip") for each in layers]}  # fmt: skip
    index = {"schemaVersion": 2, "manifests": [blob(json.dumps(document).encode(), "manifest.v1+json")]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    command = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}"]
    subprocess.run([*command, f"docker://{host}/{name}"], check=True, capture_output=True)
    return index["manifests"][0]["digest"]


def qcow2(folder, *options):
    path = folder / "made.qcow2"
    path.unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "8M"], check=True)
    return path.read_bytes()


def header_with_backing():
    name = b"/etc/shadow"
    start = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 512, len(name), 16, 8 * MIB, 0, 1, 196608, 65536, 1, 0, 0)
    return start.ljust(512, b"\0") + name + bytes(MIB)


@pytest.mark.server
async def test_pulls_from_a_registry(server, tmp_path):
    host, folder = server
    disk = qcow2(folder)
    digest = push(server, "good:1", layer(("etc/x", b"")), layer(("disk/a.qcow2", disk)))
    name = f"{host}/good:1"
    said = []
    found = await asyncio.gather(
        *(registry.pull(name, (), tmp_path, progress=lambda step, _: said.append(step)) for _ in range(3))
    )
    assert found[0] == found[1] == found[2], "fetched once, for all who asked"
    assert said.count("unpacking") == 1
    first = found[0]
    assert (first.digest, first.disk_format, first.virtual_size) == (digest, "qcow2", 8 * MIB)
    assert first.disk.read_bytes() == disk
    assert first.disk.stat().st_mode & 0o777 == 0o444
    assert pulled.find(name, (), tmp_path) == first
    assert pulled.find(f"{host}/good@{digest}", (), tmp_path).disk == first.disk, "whatever it was pulled by"
    assert pulled.find(name, ("/other",), tmp_path) is None

    # Another image under the same name is another image; the first stays for those who use it.
    second = push(server, "good:1", layer(("disk/a.qcow2", disk), ("boot/vmlinuz", b"kernel")))
    again = await registry.pull(name, (), tmp_path)
    assert (again.digest, again.disk != first.disk, first.disk.exists()) == (second, True, True)
    kernel = await registry.pull(name, (pulled.KERNEL, "/boot/vmlinuz"), tmp_path)
    assert (kernel.disk, kernel.files["/boot/vmlinuz"].read_bytes()) == (None, b"kernel")
    assert sorted(each.name for each in (tmp_path / "registry").iterdir() if each.name.startswith(".build")) == []


@pytest.mark.server
async def test_a_registry_with_an_authority_of_its_own(private, tmp_path):
    (host, folder), authority = private
    push((host, folder), "good:1", layer(("disk/a", b"d" * 4096)))
    for unknown in (" ", authority.replace("A", "B", 1)):
        with pytest.raises(ImageError, match="name it in certConfigMap of the DataVolume"):
            await registry.pull(f"{host}/good:1", (), tmp_path / "cache", authorities=unknown)
    found = await registry.pull(f"{host}/good:1", (), tmp_path / "cache", authorities=authority)
    assert found.disk.read_bytes() == b"d" * 4096


@pytest.mark.server
async def test_a_data_volume_names_the_authority_in_a_configmap(private, tmp_path):
    (host, folder), authority = private
    push((host, folder), "good:1", layer(("disk/a", b"d" * 4096)))
    maps = {"mine": {"ca.pem": authority}, "none": {"ca.pem": "hello"}}

    async def get(resource, name, namespace):
        if name not in maps:
            raise NotFound(name)
        return {"data": maps[name]}

    async def imported(config_map):
        request = Request("registry", {"url": f"docker://{host}/good:1", "certConfigMap": config_map})
        client = SimpleNamespace(get=get)
        return await importsources.registry(client, "shop", request, cache=tmp_path / "cache", tell=lambda *_: None)

    assert (await imported("mine")).read_bytes() == b"d" * 4096
    with pytest.raises(ImageError, match="certConfigMap holds no certificates in PEM form"):
        await imported("none")
    with pytest.raises(ImageError, match="certConfigMap is 'lost', but there is no such ConfigMap: create it"):
        await imported("lost")


@pytest.mark.server
async def test_a_registry_that_sends_more_than_its_manifest_says(lying, tmp_path):
    host, handler = lying
    (tmp_path / "registry").mkdir()
    with pytest.raises(CorruptImage, match="sends more than the image's manifest says"):
        await registry.pull(f"{host}/x:1", (), tmp_path)
    assert handler.sent < 64 * MIB
    assert [each.name for each in (tmp_path / "registry").iterdir() if each.name.startswith(".build")] == []


@pytest.mark.server
async def test_what_a_registry_may_not_bring(server, tmp_path):
    host, _ = server
    push(server, "backed:1", layer(("disk/a.qcow2", header_with_backing())))
    push(server, "linked:1", layer(("disk/a.qcow2", SYMTYPE, "/etc/shadow")))
    push(server, "empty:1", layer(("disk/a.qcow2", b"")))
    faults = {
        "backed:1": (UnsafeImage, r"image .*backed:1: /disk/a.qcow2 is refused: it names another file as its backing"),
        "linked:1": (CorruptImage, "is a symbolic link in the image"),
        "empty:1": (CorruptImage, "is empty"),
        "none:1": (ImageError, "manifest unknown"),
        f"backed@sha256:{'0' * 64}": (ImageError, "manifest unknown"),
    }
    for name, (kind, why) in faults.items():
        with pytest.raises(kind, match=why):
            await registry.pull(f"{host}/{name}", (), tmp_path)
    with pytest.raises(ImageError, match="connection refused"):
        await registry.pull("127.0.0.1:1/x", (), tmp_path)
    assert pulled.kept(tmp_path) == []
    assert [each.name for each in (tmp_path / "registry").iterdir() if each.name.startswith(".build")] == []
