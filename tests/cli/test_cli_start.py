"""Each command's start costs little: only what it needs is imported. What that takes, `benchmarks/start.py` prints."""

import re
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
