"""`hotvirt` starts at once: what a command does not need is not loaded."""

import resource
import subprocess
import sys

import pytest

HEAVY = {"aiohttp", "asyncio", "cryptography", "http.client", "ssl", "yaml", "uvloop", "pyroute2", "oslo_utils"}
LIMIT = 0.1
"""Seconds of CPU. Wall time is the same on a quiet machine, and no measure on a busy one."""


def loaded(*words):
    code = f"import sys\nsys.argv[1:] = {list(words)!r}\nfrom hotvirt.cli.main import main\n"
    code += "try:\n    main()\nfinally:\n    print(*sys.modules, sep='\\n', file=sys.stderr)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines())


def seconds(*words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [sys.executable, "-c", "from hotvirt.cli.main import main; main()", *words]
    subprocess.run(argv, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("words", [("--help",), ("version", "--client")])
def test_it_loads_little_and_takes_less_than_a_tenth_of_a_second(words):
    assert loaded(*words) & HEAVY == set()
    assert any(seconds(*words) < LIMIT for _ in range(3))
