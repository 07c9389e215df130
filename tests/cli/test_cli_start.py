"""Each command's start costs little: only what it needs is imported. What that takes, `benchmarks/start.py` prints."""

import re
import resource
import subprocess
import sys

import pytest

from hotvirt.cli.main import COMMANDS

pytestmark = pytest.mark.server  # real programs run

HEAVY = (
    "aiohttp",
    "uvloop",
    "apsw",
    "cryptography",
    "pyroute2",
    "oslo_utils",
    "pycdlib",
    "jsonpatch",
    "qemu",
    "asyncio",
)


def imported(*words):
    code = (
        "import sys\n"
        "from hotvirt.cli.main import hotvirt\n"
        f"try: hotvirt.main({list(words)!r}, standalone_mode=False)\n"
        "finally: print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [("--help",), ("start", "--help"), ("guest", "--help"), ("addvolume", "--help")])
def test_nothing_heavy_is_imported(words):
    loaded = imported(*words)
    assert [name for name in HEAVY if name in loaded] == []
    assert len(loaded) < 260, "a new import made the command line slower; import it where it is used"


def test_the_client_version_needs_no_api():
    assert {"http.client", "ssl", "yaml", *HEAVY} & imported("version", "--client") == set()


@pytest.mark.parametrize("words", [("--help",), ("version", "--client")])
def test_it_starts_in_less_than_a_tenth_of_a_second(words):
    """Of the CPU's time: on a quiet machine that is the wall's too, and on a busy one the better measure. Machines vary
    twofold from hour to hour: where the libraries alone take long to load, so may this. They, as Python alone is a poor
    measure of it: seven times as long on one machine, nine on another."""

    def seconds(code, *argv):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    rounds = [
        (seconds("import click, msgspec"), seconds("from hotvirt.cli.main import main; main()", *words))
        for _ in range(5)
    ]
    floor, ours = (min(each) for each in zip(*rounds, strict=True))
    assert ours < max(0.1, 1.7 * floor), f"{ours:.3f} s, and its libraries alone {floor:.3f}"


def commands(name, command):
    yield name, command
    for below, each in getattr(command, "commands", {}).items():
        yield from commands(f"{name} {below}", each)


def test_every_command_has_help_with_an_example():
    import importlib

    for name, (module, attribute, line) in COMMANDS.items():
        assert line.endswith("."), name
        for path, command in commands(name, getattr(importlib.import_module(f"hotvirt.cli.{module}"), attribute)):
            assert re.search(r"\n\s*Examples?:\n", command.help), f"{path} --help shows no example"
