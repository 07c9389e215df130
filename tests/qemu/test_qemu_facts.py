"""Reading the guest's own files: what Linux writes, and what a hostile guest might."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotvirt.qemu.errors import AgentRefused
from hotvirt.qemu.facts import count_list, parse_meminfo, parse_partitions, parse_serial
from hotvirt.qemu.guestagent import clean

PARTITIONS = """major minor  #blocks  name

   8        0      65536 sda
   8        1      65535 sda1
 254        0    1048576 vda
 254       16       2048 vdb
 259        0       4096 nvme0n1
 259        1       2048 nvme0n1p1
   7        0       1024 loop0
 252        0       1024 zram0
  11        0     366592 sr0
"""


def test_whole_disks_only() -> None:
    assert parse_partitions(PARTITIONS) == {
        "sda": 65536 << 10,
        "vda": 1 << 30,
        "vdb": 2 << 20,
        "nvme0n1": 4 << 20,
        "sr0": 366592 << 10,
    }


def test_a_guest_cannot_name_a_path_or_fill_memory() -> None:
    assert parse_partitions("8 0 1 ../../etc\n8 0 1 a b\n8 0 99999999999999999999 sda\n") == {}
    assert len(parse_partitions("".join(f"8 0 1 d{chr(97 + i % 26)}{chr(97 + i // 26)}\n" for i in range(600)))) == 300


def test_meminfo() -> None:
    text = "MemTotal:        1462832 kB\nMemFree: 1 kB\nMemAvailable:      38 kB\n"
    assert parse_meminfo(text, "MemTotal") == 1462832 << 10
    assert parse_meminfo(text, "MemAvailable") == 38 << 10
    assert parse_meminfo("MemTotal: lots kB", "MemTotal") is None


@pytest.mark.parametrize(
    ("text", "count"), [("0\n", 1), ("0-3\n", 4), ("0,2-3", 3), ("", None), ("x", None), ("0-", None)]
)
def test_cpu_lists(text: str, count: int | None) -> None:
    assert count_list(text) == count


def test_serials_of_both_buses() -> None:
    assert parse_serial("vda", b"data\0\0\0") == "data"
    assert parse_serial("sda", b"\0\x80\0\x04data") == "data"
    assert parse_serial("sda", AgentRefused("guest-file-open", "GenericError", "no such file")) == ""
    assert parse_serial("vda", b"\x1b[31mred\xff") == "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"


@given(st.text() | st.integers() | st.none(), st.integers(0, 20))
def test_clean_text_is_short_and_printable(value: object, limit: int) -> None:
    assert len(clean(value, limit)) <= limit
    assert clean(value).isprintable()
