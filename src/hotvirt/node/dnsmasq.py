"""One dnsmasq: started once, known again, started anew when it ends.

It is a daemon of its own, neither child nor fate of the home, and known by the pid file that only ours is given. It
gives up root before it listens to guests, so what it reads must be readable by anybody, and lie where anybody may pass.
What it is to know anew it reads when it is sent SIGHUP, between two queries.
"""

import asyncio
import logging
import os
import shutil
import signal
from pathlib import Path

from hotvirt.node.network import NetworkError
from hotvirt.qemu.process import Process, identify

log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0


class Dnsmasq:
    """`argv` without the pid file's option; `files` are what it reads, empty at first. All of it is in `directory`,
    which is ours alone. `serves` is what guests lack without it."""

    def __init__(self, directory: Path, argv: list[str], *, files: tuple[Path, ...], serves: str) -> None:
        self.directory = directory
        self._pid = directory / "dnsmasq.pid"
        self._argv = [*argv, f"--pid-file={self._pid}"]
        self._files, self._serves = files, serves
        self._is_retired = False

    async def start(self) -> None:
        """Serves from now on. Idempotent; NetworkError when it cannot."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            # Whatever the umask: see above.
            above = self.directory.parent
            above.chmod(above.stat().st_mode | 0o055)
            above.parent.chmod(above.parent.stat().st_mode | 0o011)
            self.directory.chmod(0o755)
            for file in self._files:
                if not file.exists():
                    write(file, "")
        except OSError as error:
            raise NetworkError(f"{error.filename} cannot be made for dnsmasq: {error.strerror}") from error
        if (running := self.find()) is not None:
            with running:
                if _arguments(running.identity.pid) == self._argv:
                    return
                await running.stop(grace=2)  # an earlier version of ours started it
        # As it becomes a daemon it returns when it serves, or says why it cannot.
        process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        if process.returncode:
            why = said.decode("utf-8", "replace").strip().removeprefix("dnsmasq: ")
            raise NetworkError(f"dnsmasq does not start, so guests have no {self._serves}: {why}")

    async def keep(self) -> None:
        """Starts it anew whenever it ends, until it is retired."""
        delay = FIRST_DELAY
        while True:
            if (process := self.find()) is not None:
                with process:
                    await process.wait()
                if self._is_retired:
                    return
                log.warning("dnsmasq ended, so guests have no %s: starting it again", self._serves)
                delay = FIRST_DELAY
            try:
                await self.start()
            except (
                NetworkError,
                OSError,
            ) as error:  # no process may be had at times, nor a program while it is updated
                log.error("%s; trying again in %g s", error, delay)
            # Also after success: what ends at once each time must not become a storm.
            await asyncio.sleep(delay)
            if self._is_retired:
                return
            delay = min(delay * 2, LONGEST_DELAY)

    async def retire(self) -> None:
        """Leaves nothing behind."""
        self._is_retired = True
        if (process := self.find()) is not None:
            with process:
                await process.stop(grace=2)
        shutil.rmtree(self.directory, ignore_errors=True)

    def tell(self) -> None:
        """Its files have changed."""
        if (process := self.find()) is not None:
            with process:
                process.send(signal.SIGHUP)

    def find(self) -> Process | None:
        """Ours, by whichever home started it: no other process was given our pid file."""
        try:
            number = int(self._pid.read_text())
        except (OSError, ValueError):
            return None
        if f"--pid-file={self._pid}" not in _arguments(number):
            return None
        identity = identify(number)
        return Process.open(identity) if identity else None


def write(file: Path, text: str) -> None:
    """Whole or not at all, and for anybody to read."""
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.rename(file)


def _arguments(pid: int) -> list[str]:
    try:
        return [os.fsdecode(each) for each in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return []
