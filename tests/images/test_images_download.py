"""Downloads go on where they ended, are never joined to another version, and say what stands in the way."""

import asyncio
import hashlib
import os
import random
import threading

import image_server
import pytest

from hotvirt.images import copying, download
from hotvirt.images.errors import CorruptImage, ImageError, ImageNotFound, NoRoom, TooLarge

KIB, MIB = 1 << 10, 1 << 20
DATA = random.Random(5).randbytes(600 * KIB) + bytes(2 * MIB) + b"end"

pytestmark = pytest.mark.server


@pytest.fixture
def images():
    with image_server.serve() as found:
        yield found


async def fetch(images, file, name="disk", **said):
    stall = said.pop("stall", 5)
    await download.fetch(download.Source(url=f"{images.url}/{name}", **said), file, stall=stall)


async def test_all_of_it_arrives_and_zeros_take_no_room(images, tmp_path):
    images.put("disk", DATA)
    file = tmp_path / "work" / "file"
    await fetch(images, file, checksum=f"sha256:{hashlib.sha256(DATA).hexdigest()}")
    assert file.read_bytes() == DATA
    assert file.stat().st_blocks * 512 < len(DATA) - MIB
    await fetch(images, file)
    assert len(images.asked) == 1, "what is there is not asked for"


async def test_it_goes_on_where_it_ended(images, tmp_path):
    images.put("disk", DATA)
    images.cut["disk"] = 300 * KIB
    file = tmp_path / "file"
    with pytest.raises(ImageError, match="the server ended too early"):
        await fetch(images, file, checksum=f"md5:{hashlib.md5(DATA).hexdigest()}")
    had = file.stat().st_size
    await fetch(images, file, checksum=f"md5:{hashlib.md5(DATA).hexdigest()}")
    assert file.read_bytes() == DATA
    assert images.asked[-1] == ("disk", f"bytes={had}-" if had else "")


async def test_another_version_is_not_joined_to_what_is_there(images, tmp_path):
    images.put("disk", DATA)
    images.cut["disk"] = 300 * KIB
    file = tmp_path / "file"
    with pytest.raises(ImageError):
        await fetch(images, file)
    images.put("disk", DATA[::-1])
    with pytest.raises(download.SourceChanged, match="changed while it was read"):
        await fetch(images, file)
    assert not file.exists()
    await fetch(images, file)
    assert file.read_bytes() == DATA[::-1]


async def test_after_a_crash_of_the_machine_only_what_was_synced_counts(images, tmp_path):
    images.put("disk", DATA)
    images.cut["disk"] = 300 * KIB
    file = tmp_path / "file"
    with pytest.raises(ImageError):
        await fetch(images, file)
    note = file.with_name("file.json")
    note.write_text(note.read_text().replace(download.describe(file)["boot"], "another"))
    await fetch(images, file)
    assert file.read_bytes() == DATA
    assert images.asked[-1] == ("disk", ""), "nothing was synced yet"


async def test_a_server_that_stalls(images, tmp_path):
    images.put("disk", DATA)
    images.stall["disk"] = 128 * KIB
    with pytest.raises(ImageError, match=r"the server sent nothing for 0\.2 s"):
        await fetch(images, tmp_path / "file", stall=0.2)


async def test_what_is_wrong_is_said(images, tmp_path):
    images.put("disk", DATA)
    with pytest.raises(ImageNotFound, match=r"/none: the server has no such file \(404\)"):
        await fetch(images, tmp_path / "a", name="none")
    wrong = f"sha256:{'0' * 64}"
    with pytest.raises(CorruptImage, match=f"its sha256 is {hashlib.sha256(DATA).hexdigest()} and should be 0"):
        await fetch(images, tmp_path / "b", checksum=wrong)
    assert not (tmp_path / "b").exists()
    images.password = "Basic dTpw"
    with pytest.raises(ImageError, match="name them in secretRef"):
        await fetch(images, tmp_path / "c")
    await fetch(images, tmp_path / "c", user="u", password="p")
    with pytest.raises(ImageError, match=r"http://127.0.0.1:1/x: the server cannot be reached"):
        await download.fetch(download.Source(url="http://u:secret@127.0.0.1:1/x?token=secret"), tmp_path / "d")


class Disk:
    """Of a host, with so many bytes free, less what is in the file."""

    def __init__(self, file, size):
        self.file, self.size, self.most = file, size, 0

    def free(self, directory):
        assert directory == self.file.parent
        taken = self.file.stat().st_blocks * 512 if self.file.exists() else 0
        self.most = max(self.most, taken)
        return download.MARGIN + self.size - taken


FULL = random.Random(6).randbytes(20 * MIB)


@pytest.mark.parametrize("digest", ["", f"sha256:{hashlib.sha256(FULL).hexdigest()}"])
async def test_a_server_that_says_no_size_leaves_a_margin_and_no_file(images, tmp_path, digest):
    images.put("disk", FULL)
    images.silent.add("disk")
    file = tmp_path / "file"
    disk = Disk(file, 13 * MIB)
    source = download.Source(url=f"{images.url}/disk", checksum=digest)
    for _ in range(2):
        with pytest.raises(NoRoom, match=r"no room is left in .* after \d+ MiB, and the server does not say how many"):
            await download.fetch(source, file, free=disk.free)
        assert list(tmp_path.iterdir()) == [], "it would fill the disk again"
    assert 8 * MIB <= disk.most <= 13 * MIB
    disk.size = 64 * MIB
    await download.fetch(source, file, free=disk.free)
    assert file.read_bytes() == FULL


async def test_what_will_have_room_one_day_stays(images, tmp_path):
    images.put("disk", FULL)
    file, calls = tmp_path / "file", []

    def filled_by_others(directory):
        calls.append(directory)
        return download.MARGIN + (64 * MIB if len(calls) < 3 else 0)

    source = download.Source(url=f"{images.url}/disk")
    with pytest.raises(NoRoom, match=r"no room is left in .* after \d+ MiB of 20; 256 MiB stay free"):
        await download.fetch(source, file, free=filled_by_others)
    had = file.stat().st_size
    assert had > 0
    with pytest.raises(NoRoom, match=r"MiB more, and 0 MiB are free for it"):
        await download.fetch(source, file, free=filled_by_others)
    await download.fetch(source, file)
    assert (file.read_bytes(), images.asked[-1]) == (FULL, ("disk", f"bytes={had}-"))


@pytest.mark.parametrize("is_silent", [True, False])
async def test_far_more_than_a_claim_holds_is_not_taken(images, tmp_path, is_silent):
    images.put("disk", FULL)
    if is_silent:
        images.silent.add("disk")
    file = tmp_path / "file"
    disk = Disk(file, 64 * MIB)
    with pytest.raises(TooLarge, match="is far larger than its claim: more than 10 MiB"):
        await download.fetch(download.Source(url=f"{images.url}/disk"), file, most=10 * MIB, free=disk.free)
    assert list(tmp_path.iterdir()) == []
    assert disk.most <= (10 * MIB if is_silent else 0)


async def test_more_than_the_server_said_is_not_taken(images, tmp_path):
    images.put("disk", FULL)
    images.cut["disk"] = 6 * MIB
    file = tmp_path / "file"
    with pytest.raises(ImageError, match="ended too early"):
        await fetch(images, file)
    images.silent.add("disk")
    images.says["disk"] = 12 * MIB
    with pytest.raises(TooLarge, match="the server sends more than the 12582912 bytes that it said"):
        await fetch(images, file)
    assert not file.exists()


async def test_copies_leave_holes_out_and_appear_when_they_are_whole(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)
    told = []
    assert await copying.copy_disk(source, target, progress=told.append, reflink=False) == "sparse"
    assert target.read_bytes() == DATA
    assert target.stat().st_blocks * 512 < len(DATA) - MIB
    assert told[-1] == 1.0
    with pytest.raises(ImageError, match="exists already"):
        await copying.copy_disk(source, target)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "target"}


@pytest.mark.parametrize("size", [1000, 64 * KIB, 64 * KIB + 1, 255_199, 5 * MIB])
def test_pieces_of_any_size_make_the_same_file_with_its_holes(tmp_path, size):
    pieces, at = copying.Pieces(), 0
    with (tmp_path / "file").open("wb") as file:
        for begin in range(0, len(DATA), size):
            if pieces.add(DATA[begin : begin + size]):
                at = copying.append(file.fileno(), pieces.taken(), at)
        at = copying.append(file.fileno(), pieces.taken(), at)
    assert at == len(DATA)
    assert (tmp_path / "file").read_bytes() == DATA
    assert (tmp_path / "file").stat().st_blocks * 512 < len(DATA) - MIB


def test_pieces_are_bounded_by_their_bytes_and_by_their_number():
    pieces = copying.Pieces()
    assert [pieces.add(bytes(MIB)) for _ in range(4)] == [False, False, False, True]
    assert (len(pieces.taken()), pieces.size, pieces.taken()) == (4, 0, [])
    assert [pieces.add(b"x") for _ in range(copying.Pieces.MOST)].index(True) == copying.Pieces.MOST - 1


async def test_one_that_is_called_off_writes_to_nothing_that_is_opened_next(images, tmp_path, monkeypatch):
    images.put("disk", DATA)
    begun, goes_on, wrote = threading.Event(), threading.Event(), []
    append = copying.append

    def slow(descriptor, pieces, at):
        begun.set()
        goes_on.wait(10)
        wrote.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return append(descriptor, pieces, at)

    monkeypatch.setattr(copying, "append", slow)
    task = asyncio.create_task(fetch(images, tmp_path / "file"))
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(2):  # the second, as by a home that stops just then
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
    assert not task.done(), "its file would be closed while the thread writes to it"
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wrote == [str(tmp_path / "file")]
