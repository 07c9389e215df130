"""Running the few outside programs that images need: bounded in time and memory, stopped when the caller is.

Any number of runs may go on at once; each belongs to the coroutine that awaits it, and a cancelled or overdue run has
its whole process group killed before the call returns.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hotvirt.images.errors import ToolFailed, ToolMissing

Progress = Callable[[str, float | None], None]
"""Called with what is being done now and, where it is known, how far (0 to 1). Must be quick and must not raise."""

MIB = 1 << 20
_GRACE = 3.0

_PACKAGES = {
    "qemu-img": "qemu-utils",
    "prlimit": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "apt-cache": "apt",
    "swtpm": "swtpm-tools",
    "swtpm_setup": "swtpm-tools",
    "zstd": "zstd",
}


def no_progress(_step: str, _fraction: float | None) -> None:
    """For callers that don't want to hear."""


def require(program: str) -> str:
    """The program's path, or ToolMissing naming the package to install. Looks into sbin too: a user's PATH may not."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        package = _PACKAGES.get(program, program)
        raise ToolMissing(f"{program} is not installed: run `apt-get install {package}` and try again")
    return path


async def run(
    argv: Sequence[str],
    *,
    deadline: float,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
    user: int | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    memory: int | None = None,
    cpu_seconds: int | None = None,
    file_size: int | None = None,
    what: str = "",
) -> str:
    """Run a program to its end and return its standard output; ToolFailed carries the last lines it complained with.

    `deadline` is in seconds from now. Limits are set by prlimit(1), as a pre-exec hook is unsafe beside threads. With
    `stdout`, a descriptor, standard error is returned. With `user` (for root only) it runs as that user, without a
    network and without a way to more rights.
    """
    argv = [require(argv[0]), *argv[1:]]
    limits = [
        f"--{name}={value}"
        for name, value in (("as", memory), ("cpu", cpu_seconds), ("fsize", file_size))
        if value is not None
    ]
    if user is not None:
        become = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
        argv = [require("unshare"), "--net", "--", require("setpriv"), *become, "--", *argv]
    command = [require("prlimit"), "--core=0", *limits, "--", *argv] if limits else argv
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=stdin,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        start_new_session=True,
    )
    label = what or Path(argv[0]).name
    try:
        async with asyncio.timeout(deadline):
            out, err = await process.communicate()
    except TimeoutError:
        raise ToolFailed(f"{label} did not finish within {deadline:g} s and was stopped") from None
    finally:
        if process.returncode is None:
            await _stop(process)
    if process.returncode:
        raise ToolFailed(f"{label} failed ({_ending(process.returncode)}): {_last_lines(err or out or b'')}")
    return (err if out is None else out).decode(errors="replace")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask first: a program that has made a tree of its own can remove it. Its children go with it either way."""
    _signal_group(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"


def _last_lines(output: bytes, *, lines: int = 3, width: int = 400) -> str:
    """Without mmdebstrap's and apt's chatter (`I: `): what went wrong is in the lines between."""
    text = [line.strip() for line in output.decode(errors="replace").splitlines()]
    text = [line for line in text if line and not line.startswith("I: ")]
    return "; ".join(text[-lines:])[-width:] or "it said nothing"
