"""A pod's log: its tail, and following it while the process writes and until that ends."""

import asyncio
import contextlib
import io
import os
import subprocess

import pytest
from msgspec import json

from hotvirt.node import podlog
from hotvirt.node.places import PodPlace
from hotvirt.qemu.process import identify


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        ("", 3, ""),
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\n", 5, "a\nb\n"),
        ("a\n\n\n", 2, "\n\n"),
        ("a\nb\n", 0, ""),
        (f"{'x' * 100_000}\n" * 3, 2, f"{'x' * 100_000}\n" * 2),
        ("\n" + "x" * (podlog.CHUNK - 1) + "\n", 1, "x" * (podlog.CHUNK - 1) + "\n"),
    ],
)
def test_where_the_last_lines_begin(text, lines, expected):
    file = io.BytesIO(text.encode())
    file.seek(podlog.tail_offset(file, lines))
    assert file.read().decode() == expected


@pytest.fixture
def pod(tmp_path):
    """A pod whose process repeats into its log what it is told."""
    place = PodPlace(tmp_path)
    with place.log.open("ab") as log, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log) as process:
        place.pid.write_bytes(json.encode(identify(process.pid)))
        yield place, process
        process.kill()


def say(process, text):
    process.stdin.write(text)
    process.stdin.flush()


async def follow(place, into, **how):
    async for data in podlog.read(place, place.log, follow=True, **how):
        into.feed_data(data)
    into.feed_eof()


async def test_followers_hear_what_is_printed_and_end_with_the_process(pod):
    place, process = pod
    place.log.write_bytes(b"old\nlast\n")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        everything, recent = asyncio.StreamReader(), asyncio.StreamReader()
        group.create_task(follow(place, everything))
        group.create_task(follow(place, recent, tail=1))
        assert await everything.readuntil(b"last\n") == b"old\nlast\n"
        assert await recent.readuntil(b"\n") == b"last\n"
        say(process, b"new\n")
        assert await everything.readline() == b"new\n"
        assert await recent.readline() == b"new\n"
        say(process, b"the end")
        process.stdin.close()
        assert await everything.read() == b"the end"
        assert await recent.read() == b"the end"
    assert process.wait() == 0, "its exit status is the pod runner's to collect"


def test_a_log_that_was_cut_down_is_followed_from_there(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"much that was printed\n")
    with log.open("rb") as file:
        assert podlog.new_bytes(file) == b"much that was printed\n"
        log.write_bytes(b"printed\n")
        assert podlog.new_bytes(file) == b""
        with log.open("ab") as more:
            more.write(b"more\n")
        assert podlog.new_bytes(file) == b"more\n"


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def test_a_follower_that_is_cancelled_leaves_nothing(pod):
    place, _ = pod
    before = descriptors()
    task = asyncio.create_task(follow(place, asyncio.StreamReader()))
    while descriptors() == before:
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert descriptors() == before


async def test_a_pod_whose_process_is_gone_is_not_waited_for(tmp_path):
    place = PodPlace(tmp_path)
    place.log.write_bytes(b"why it ended\n")
    assert [data async for data in podlog.read(place, place.log, follow=True)] == [b"why it ended\n"]


async def test_no_log_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        await anext(podlog.read(PodPlace(tmp_path), tmp_path / "log"))
