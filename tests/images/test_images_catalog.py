"""Images by name, and how finished builds appear: with builders that write a byte instead of a guest."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hotvirt.images import catalog, debian, packages, publish, tiny
from hotvirt.images.errors import CorruptImage, ImageError, ImageNotFound, ToolMissing
from hotvirt.images.tools import Progress, no_progress


def create(path: Path, kind: str, size: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, size], check=True)


class Builder:
    """Publishes a build that says which one it is."""

    def __init__(self) -> None:
        self.built = 0
        self.version = "1"

    async def __call__(self, cache: Path, *, progress: Progress = no_progress) -> Path:
        self.built += 1
        progress("building", 0.5)
        await asyncio.sleep(0)
        with publish.build_directory(cache) as work:
            made = work / "image"
            made.mkdir()
            (made / "vmlinuz").write_text(f"kernel {self.built}")
            (made / "initrd").write_text("initrd")
            key = f"{self.version}-{self.built}"
            manifest = {"key": key, "builder": self.version, "kernelArgs": "quiet"}
            return publish.publish(made, cache=cache, family="fake", key=key, manifest=manifest)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Builder:
    fake = Builder()
    entry = catalog.Builtin(family="fake", description="", use="", build=fake, builder_id=lambda: fake.version)
    monkeypatch.setattr(catalog, "BUILTIN", {"hotvirt/fake": entry})
    monkeypatch.setenv("HOTVIRT_IMAGE_CACHE", str(tmp_path / "shared"))
    return fake


async def test_it_is_built_once_and_then_found(builder: Builder, tmp_path: Path) -> None:
    said: list[str] = []
    first = await catalog.ensure("hotvirt/fake:latest", tmp_path, lambda step, _: said.append(step))
    assert first == await catalog.ensure("hotvirt/fake", tmp_path)
    assert builder.built == 1
    assert said == ["building"]
    assert first.kernel is not None
    assert first.kernel.read_text() == "kernel 1"
    assert first.kernel_args == "quiet"
    assert first.disk is None


async def test_many_askers_share_one_build(builder: Builder, tmp_path: Path) -> None:
    found = await asyncio.gather(*(catalog.ensure("hotvirt/fake", tmp_path) for _ in range(5)))
    assert builder.built == 1
    assert len({files.kernel for files in found}) == 1


async def test_a_new_builder_builds_anew_and_keeps_what_a_guest_may_be_starting_from(
    builder: Builder, tmp_path: Path
) -> None:
    kernels = []
    for version in "123":
        builder.version = version
        kernels.append((await catalog.ensure("hotvirt/fake", tmp_path)).kernel)
    assert [path is not None and path.exists() for path in kernels] == [False, True, True]
    await catalog.ensure("hotvirt/fake", tmp_path, refresh=True)
    assert builder.built == 4


async def test_two_versions_of_hotvirt_each_find_their_build(builder: Builder, tmp_path: Path) -> None:
    found = {}
    for version in "1212":
        builder.version = version
        found.setdefault(version, []).append(await catalog.ensure("hotvirt/fake", catalog.default_cache()))
    assert found["1"][0] == found["1"][1] != found["2"][0] == found["2"][1]
    builder.version = "1"  # whose build is not the newest
    await catalog.ensure("hotvirt/fake", tmp_path / "home")
    assert builder.built == 2


async def test_another_home_takes_over_what_the_user_has_built(builder: Builder, tmp_path: Path) -> None:
    theirs = await catalog.ensure("hotvirt/fake", catalog.default_cache())
    ours = await catalog.ensure("hotvirt/fake", tmp_path / "home")
    assert builder.built == 1
    assert theirs.kernel is not None
    assert ours.kernel is not None
    assert ours.kernel.is_relative_to(tmp_path / "home")
    assert ours.kernel.samefile(theirs.kernel)


async def test_a_failing_build_leaves_nothing(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish, "publish", refuse)
    with pytest.raises(OSError, match="space"):
        await catalog.ensure("hotvirt/fake", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".fake.lock"]


async def test_published_files_are_read_only_and_whole(builder: Builder, tmp_path: Path) -> None:
    files = await catalog.ensure("hotvirt/fake", tmp_path)
    assert files.kernel is not None
    assert files.kernel.stat().st_mode & 0o222 == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".build")] == []


HOLDER = """
import asyncio, pathlib, sys
from hotvirt.images import publish

async def hold():
    async with publish.build_lock(pathlib.Path(sys.argv[1]), "fake"):
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(hold())
"""


@pytest.mark.server
async def test_a_build_in_another_process_is_waited_for_until_that_dies(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    other = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert await other.stdout.readline() == b"held\n"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), publish.build_lock(tmp_path, "fake"):
                pass
        other.kill()
        async with asyncio.timeout(10), publish.build_lock(tmp_path, "fake"):
            pass
    finally:
        if other.returncode is None:
            other.kill()
        await other.wait()


async def test_an_unknown_name_is_told_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "mine.raw").write_bytes(b"x" * 512)
    with pytest.raises(ImageNotFound) as caught:
        await catalog.ensure("hotvirt/debain:12", tmp_path)
    for word in ("hotvirt/debain:12", "hotvirt/tiny", "hotvirt/debian:12", "local/mine", "hotvirt images import"):
        assert word in str(caught.value)


async def test_a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    create(tmp_path / "local/ubuntu.img", "qcow2", "3G")
    files = await catalog.ensure("local/ubuntu", tmp_path)
    assert files == catalog.ImageFiles(
        name="local/ubuntu", disk=tmp_path / "local/ubuntu.img", disk_format="qcow2", virtual_size=3 << 30
    )
    (tmp_path / "local/ubuntu.raw").write_bytes(b"x" * 512)
    with pytest.raises(ImageError, match=r"ubuntu\.img and ubuntu\.raw"):
        await catalog.ensure("local/ubuntu", tmp_path)


async def test_a_local_file_must_be_what_its_ending_says(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    create(tmp_path / "local/odd.raw", "qcow2", "3G")
    with pytest.raises(CorruptImage, match="should be raw"):
        await catalog.ensure("local/odd", tmp_path)


async def test_an_import_converts_foreign_formats_and_refuses_a_taken_name(tmp_path: Path) -> None:
    source = tmp_path / "appliance.vmdk"
    create(source, "vmdk", "5M")
    files = await catalog.import_local(source, "appliance", tmp_path)
    assert (files.name, files.disk_format, files.virtual_size) == ("local/appliance", "qcow2", 5 << 20)
    with pytest.raises(ImageError, match="exists already"):
        await catalog.import_local(source, "local/appliance", tmp_path)
    assert [entry.name for entry in catalog.list_images(tmp_path)] == [*catalog.BUILTIN, "local/appliance"]


async def test_an_import_of_a_raw_disk_stays_sparse(tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.touch()
    os.truncate(source, 1 << 30)
    files = await catalog.import_local(source, "big", tmp_path)
    assert files.disk is not None
    assert files.disk.suffix == ".raw"
    assert files.disk.stat().st_blocks * 512 < 1 << 20


def test_damaged_publications_count_as_not_there(tmp_path: Path) -> None:
    assert publish.current(tmp_path, "fake") is None
    (tmp_path / "fake/key").mkdir(parents=True)
    (tmp_path / "fake/current").symlink_to("key")
    assert publish.current(tmp_path, "fake") is None
    (tmp_path / "fake/key/manifest.json").write_text("[1]")
    assert publish.current(tmp_path, "fake") is None


def test_the_default_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOTVIRT_IMAGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert catalog.default_cache() == tmp_path / "hotvirt/images"
    monkeypatch.setenv("HOTVIRT_IMAGE_CACHE", "/elsewhere")
    assert catalog.default_cache() == Path("/elsewhere")


def test_builders_are_told_apart_by_what_they_put_into_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny.builder_id(), debian.builder_id()
    monkeypatch.setattr(tiny, "KERNEL_ARGS", "other")
    monkeypatch.setattr(debian, "PACKAGES", ())
    assert tiny.builder_id() != before[0]
    assert debian.builder_id() != before[1]


def test_debian_says_which_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotvirt.images.tools.shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(ToolMissing, match="apt-get install mmdebstrap"):
        debian.check_requirements()


async def test_package_lists_are_fetched_privately_when_the_machine_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[str] = []

    class FakeApt:
        def __init__(self, _work: Path) -> None:
            self.fresh = False

        async def dependencies(self, _names: object) -> packages.Graph:
            return {"kernel": []} if self.fresh else {}

        async def update(self) -> None:
            calls.append("update")
            self.fresh = True

        async def download(self, names: list[str], into: Path) -> dict[str, Path]:
            calls.append(f"download {names}")
            raise ImageError("stop here")

    monkeypatch.setattr(packages, "Apt", FakeApt)
    with pytest.raises(ImageError, match="stop here"):
        await packages.fetch(lambda graph: list(graph), ask=["kernel"], work=tmp_path, progress=no_progress)
    assert calls == ["update", "download ['kernel']"]


async def test_sources_without_a_kernel_are_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class EmptyApt(packages.Apt):
        async def dependencies(self, names: object) -> packages.Graph:
            return {}

        async def update(self) -> None: ...

    monkeypatch.setattr(packages, "Apt", EmptyApt)
    with pytest.raises(ImageError, match=r"offer none of: kernel.*sources\.list"):
        await packages.fetch(lambda graph: list(graph), ask=["kernel"], work=tmp_path, progress=no_progress)


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    made = tmp_path / "work"
    made.mkdir()
    publish.publish(made, cache=tmp_path, family="fake", key="k", manifest={"key": "k", "builder": "b"})
    assert json.loads((tmp_path / "fake/current/manifest.json").read_text()) == {"key": "k", "builder": "b"}
