"""Builds the tiny guest: a distribution's kernel and an initramfs of busybox, the guest agent and our own few scripts.

It exists to try things with: it boots to a guest agent in two or three seconds even without KVM, takes CPUs, memory,
disks and network interfaces while it runs, and keeps nothing. The scripts are in `tinyroot/`. Building needs apt and
dpkg-deb only, no root, and takes a few seconds after the download (about 30 MB).

`build` may run in one coroutine at a time per cache; `catalog.ensure` holds the lock.
"""

import asyncio
import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hotvirt.images import compression, elf, kernel, packages, publish, tree
from hotvirt.images.cpio import Archive
from hotvirt.images.errors import ImageError
from hotvirt.images.tools import Progress, no_progress

FAMILY = "tiny"
BUILDER = 2
"""Raised when the same packages and scripts would give another guest."""

KERNEL_ARGS = (
    "console=ttyS0 quiet panic=-1 memhp_default_state=online_movable init_on_alloc=0 cryptomgr.notests tsc=reliable "
    "swiotlb=noforce initcall_blacklist=crypto_kdf108_init,init_kprobe_trace"
)
"""online_movable: only memory that was onlined so can be taken back from a running guest. init_on_alloc: the guest's
driver takes a page out of use by allocating it, and a kernel that clears what it allocates (Debian's) would have the
host provide each page only to get it back: measured, nine tenths of what giving 1 GiB back takes. swiotlb: no device of
its drivers needs the 64 MiB that a guest which may grow beyond 4 GiB would clear and keep. The others leave out
self-tests of ciphers and of the clock, which without KVM take more than half a second of the host's CPU, and a tracer's
tables. notests is not heard by the test of key derivation, which no module here uses."""

KERNELS = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64", "linux-image-generic")
"""Best first: small ones that know virtual hardware. The first two are Debian's and Ubuntu's."""

AGENT_MODULES = ("virtio_pci", "virtio_console")
MODULES = (
    "virtio_mem", "virtio_balloon", "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "virtio_net", "button", "evdev",
    "virtio_rng", "isofs",
)  # fmt: skip
"""Loaded at boot, in this order, after those of the agent. One that a kernel has built in is skipped."""
ON_DEMAND_MODULES = ("virtiofs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "loop", "efivarfs", "virtio_input")

_NEEDED = {"virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "virtio_mem"}
_LIBRARY_PATH = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64", "usr/lib", "lib")


async def build(cache: Path, *, progress: Progress = no_progress) -> Path:
    """Build from the newest packages and publish; the directory holds `vmlinuz` and `vmlinuz.efi` (for UEFI),
    `initrd` and the manifest."""
    if platform.machine() != "x86_64":
        raise ImageError(f"hotvirt/tiny can be built on x86_64 only, and this machine is {platform.machine()}")
    with publish.build_directory(cache) as work:
        fetched = await packages.fetch(
            select_packages, ask=[*KERNELS, "busybox-static", "qemu-guest-agent"], work=work, progress=progress
        )
        progress("building the initramfs", None)
        built = work / "image"
        manifest = await asyncio.to_thread(assemble, fetched, built)
        target = publish.publish(built, cache=cache, family=FAMILY, key=manifest["key"], manifest=manifest)
        progress("ready", 1.0)
        return target


def select_packages(graph: packages.Graph) -> list[str]:
    """The kernel's packages, busybox, the agent and the libraries it may need; nothing if one of them is missing."""
    meta = next((name for name in KERNELS if graph.get(name)), None)
    if meta is None or "busybox-static" not in graph or "qemu-guest-agent" not in graph:
        return []
    images = packages.closure([meta], graph, keep=re.compile(r"linux-(image|modules)-\d"))[1:]
    agent = packages.closure(["qemu-guest-agent"], graph, keep=re.compile(r"lib"))
    return [*images, "busybox-static", *agent]


def assemble(fetched: packages.Fetched, built: Path) -> dict[str, Any]:
    """Write kernel and initramfs from unpacked packages, and return the manifest. CPU-bound: about a second."""
    release = _kernel_release(fetched.root)
    initrd = Archive()
    _add_base(initrd, fetched.root)
    _add_program(initrd, fetched.root, path="usr/sbin/qemu-ga")
    _add_modules(initrd, fetched.root, release=release)
    _add_scripts(initrd, resources.files("hotvirt.images") / "tinyroot")
    key = build_key(fetched.versions)
    initrd.file("etc/os-release", _os_release(key).encode())
    built.mkdir()
    bzimage = (fetched.root / f"boot/vmlinuz-{release}").read_bytes()
    (built / "vmlinuz").write_bytes(kernel.boot_image(bzimage))
    (built / "vmlinuz.efi").write_bytes(bzimage)
    (built / "initrd").write_bytes(initrd.render())
    return {
        "key": key,
        "builder": builder_id(),
        "packages": dict(fetched.versions),
        "kernelRelease": release,
        "kernelArgs": KERNEL_ARGS,
    }


def build_key(versions: Mapping[str, str]) -> str:
    """Names a build by all that goes into it: the same packages and the same builder give the same bytes."""
    text = json.dumps([builder_id(), sorted(versions.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def builder_id() -> str:
    """Changes with this builder and with any script of the guest."""
    digest = hashlib.sha256(f"{BUILDER} {KERNEL_ARGS} {AGENT_MODULES} {MODULES} {ON_DEMAND_MODULES}".encode())
    for path, data in tree.read(resources.files("hotvirt.images") / "tinyroot"):
        digest.update(path.encode() + b"\0" + data + b"\0")
    return digest.hexdigest()[:16]


def _kernel_release(root: Path) -> str:
    images = sorted((root / "boot").glob("vmlinuz-*"))
    if not images:
        raise ImageError("the kernel packages hold no boot/vmlinuz-*: their layout is not one this builder knows")
    return images[-1].name.removeprefix("vmlinuz-")


def _add_base(initrd: Archive, root: Path) -> None:
    for directory in ("dev", "proc", "sys", "run", "root", "mnt", "var/log"):
        initrd.directory(directory)
    initrd.directory("tmp", mode=0o1777)
    for link, target in {
        "usr/bin": "/bin", "usr/sbin": "/sbin", "usr/lib": "/lib", "var/run": "/run", "init": "/bin/busybox",
        "etc/mtab": "/proc/mounts",
    }.items():  # fmt: skip
        initrd.symlink(link, target)
    # The kernel opens the console before anything can mount devtmpfs.
    initrd.char_device("dev/console", major=5, minor=1)
    busybox = next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists())
    initrd.file("bin/busybox", busybox.read_bytes(), mode=0o755)
    names = subprocess.run([busybox, "--list-full"], check=True, capture_output=True, text=True, timeout=10).stdout
    for applet in names.split():
        directory = "sbin" if "sbin/" in applet else "bin"
        name = applet.rsplit("/", 1)[-1]
        if name != "busybox":
            initrd.symlink(f"{directory}/{name}", "/bin/busybox")


def _add_program(initrd: Archive, root: Path, *, path: str) -> None:
    """A dynamically linked program with its loader and every library that it or they need."""
    data = (root / path).read_bytes()
    initrd.file("sbin/" + path.rsplit("/", 1)[-1], data, mode=0o755)
    loader = elf.interpreter(data)
    if loader is not None:
        initrd.file(loader, _library(root, loader.rsplit("/", 1)[-1]), mode=0o755)
    waiting = elf.needed(data)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or (loader is not None and loader.endswith("/" + name)):
            continue
        seen.add(name)
        library = _library(root, name)
        initrd.file(f"lib/{name}", library, mode=0o755)
        waiting += elf.needed(library)


def _library(root: Path, name: str) -> bytes:
    for directory in _LIBRARY_PATH:
        path = root / directory / name
        if path.is_symlink() or path.exists():
            return _resolve(root, path).read_bytes()
    raise ImageError(f"the guest agent needs {name}, and none of the fetched packages has it")


def _resolve(root: Path, path: Path) -> Path:
    """Follow a package's symlinks inside `root`, where absolute targets start."""
    for _ in range(8):
        if not path.is_symlink():
            return path
        target = path.readlink()
        path = root / target.relative_to("/") if target.is_absolute() else path.parent / target
    raise ImageError(f"{path} in the fetched packages is a loop of links")


def _add_modules(initrd: Archive, root: Path, *, release: str) -> None:
    directory = next((root / lib for lib in (f"lib/modules/{release}", f"usr/lib/modules/{release}")
                      if (root / lib / "kernel").is_dir()), None)  # fmt: skip
    if directory is None:
        raise ImageError(f"the kernel packages hold no modules of {release}")
    files = {kernel.module_name(path.name): path for path in sorted(directory.rglob("*.ko*"))}
    wanted = [*AGENT_MODULES, *MODULES, *ON_DEMAND_MODULES]
    contents: dict[str, bytes] = {}
    depends: dict[str, list[str]] = {}
    waiting = [name for name in wanted if name in files]
    while waiting:
        name = waiting.pop()
        if name in depends:
            continue
        contents[name] = compression.unpack_named(files[name].name, files[name].read_bytes())
        listed = ",".join(elf.module_facts(contents[name]).get("depends", []))
        depends[name] = [other.replace("-", "_") for other in listed.split(",") if other]
        waiting += [other for other in depends[name] if other in files]
    _check_built_in(directory, missing=_NEEDED - set(depends), release=release)
    paths = {name: str(files[name].relative_to(directory)).split(".ko", 1)[0] + ".ko" for name in depends}
    order = kernel.load_order(wanted, depends=depends)
    for name in order:
        initrd.file(f"lib/modules/{release}/{paths[name]}", contents[name])
    table = kernel.modules_dep(order, depends=depends, paths=paths)
    initrd.file(f"lib/modules/{release}/modules.dep", table.encode())
    initrd.file("etc/modules", " ".join(name for name in MODULES if name in depends).encode() + b"\n")


def _check_built_in(directory: Path, *, missing: set[str], release: str) -> None:
    builtin = {kernel.module_name(line) for line in (directory / "modules.builtin").read_text().split()}
    if lacking := sorted(missing - builtin):
        raise ImageError(f"kernel {release} has no {', '.join(lacking)}: hotvirt/tiny can't use it")


def _add_scripts(initrd: Archive, scripts: Traversable) -> None:
    for path, data in tree.read(scripts):
        initrd.file(path, data, mode=tree.mode(data))


def _os_release(key: str) -> str:
    return f'NAME="hotvirt tiny"\nID=hotvirt-tiny\nPRETTY_NAME="hotvirt tiny test guest"\nBUILD_ID={key}\n'
