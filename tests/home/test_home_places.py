"""Where a home lives, and that only one does at a time."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hotvirt.home import lock, paths
from hotvirt.home.errors import HomeError
from hotvirt.qemu.process import identify


@pytest.mark.parametrize(
    ("named", "env", "uid", "state", "run", "is_default"),
    [
        (None, {}, 0, "/var/lib/hotvirt", "/run/hotvirt", True),
        (None, {"HOME": "/h"}, 7, "/h/.local/share/hotvirt", "/h/.local/share/hotvirt/run", True),
        (None, {"XDG_DATA_HOME": "/d"}, 7, "/d/hotvirt", "/d/hotvirt/run", True),
        (None, {"HOTVIRT_HOME": "/e"}, 0, "/e", "/e/run", False),
        ("/n", {"HOTVIRT_HOME": "/e"}, 7, "/n", "/n/run", False),
    ],
)
def test_places(named, env, uid, state, run, is_default):
    found = paths.resolve(named, env=env, uid=uid)
    assert (found.state, found.run, found.is_default) == (Path(state), Path(run), is_default)


def test_prepare_keeps_keys_to_the_owner():
    with tempfile.TemporaryDirectory(prefix="hv-") as short:
        found = paths.resolve(f"{short}/home", env={}, uid=0)
        found.prepare()
        found.prepare()
        assert found.pki.stat().st_mode & 0o777 == 0o700


def test_a_path_too_long_for_sockets_is_refused_with_the_mend():
    with pytest.raises(HomeError, match=r"too long for unix sockets.*--home or HOTVIRT_HOME"):
        paths.resolve("/" + "x" * 60, env={}, uid=0).prepare()


def test_a_place_that_cannot_be_made_is_named():
    with pytest.raises(HomeError, match="cannot make /proc/nowhere"):
        paths.resolve("/proc/nowhere", env={}, uid=0).prepare()


def test_one_home_at_a_time(tmp_path):
    path = tmp_path / "home.lock"
    assert lock.holder(path) is None
    with lock.hold(path) as held:
        assert lock.holder(path).identity == identify(os.getpid())
        held.say("https://127.0.0.1:1")
        assert lock.holder(path).url == "https://127.0.0.1:1"
        with pytest.raises(HomeError, match=f"process {os.getpid()}.*hotvirt down"), lock.hold(path):
            pass
    assert lock.holder(path) is None


def test_a_killed_home_leaves_no_lock(tmp_path):
    path = tmp_path / "home.lock"
    code = (
        "import sys, pathlib, time; from hotvirt.home import lock\n"
        "with lock.hold(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    with child:
        assert child.stdout.readline() == b"held\n"
        assert lock.holder(path).pid == child.pid
        child.send_signal(signal.SIGKILL)
    assert lock.holder(path) is None
    with lock.hold(path):
        pass
