"""Walks docs/tutorial.md as a new user would: types each command of the page at a shell's prompt, in order.

    scripts/walk-tutorial                                      # here: makes and removes VMs in your home
    scripts/clean-room --once bookworm scripts/walk-tutorial   # from a machine with nothing of ours installed

Nothing of a command is changed; `steps.py` says what a person does besides typing (answers a question, leaves a
console), and what the page lets them expect. Ends at the first command that fails or shows something else. Only the
standard library: on the machine there is nothing else yet.
"""

import argparse
import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from steps import STEPS, Step

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
PROMPT = re.compile(r"walk\[(\d+)\]\$ $")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>()][0-9A-Za-z]?|\r")


class Strayed(Exception):
    """The page and the machine differ. The text says where."""


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Heading and command of each line of the page's blocks; a command that goes on over lines is one."""
    heading, parts = "", []
    for line in page.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("    ") and line.strip():
            parts.append(line[4:])
            if not line.endswith("\\"):
                yield heading, "\n".join(parts)
                parts = []


def step_of(command: str) -> Step:
    found = [step for step in STEPS if re.match(step.command, command)]
    if not found:
        raise Strayed(f"the page says {command!r}, which tests/tutorial/steps.py does not know")
    return found[0]


class Shell:
    """A person's shell on a terminal of its own. What it shows goes to standard output too."""

    def __init__(self, home: Path) -> None:
        (home / "inputrc").write_text("set enable-bracketed-paste off\n")
        self._editor = home / "editor"
        words = {
            "PS1": "walk[$?]$ ", "TERM": "xterm", "INPUTRC": str(home / "inputrc"), "EDITOR": str(self._editor),
            "COLUMNS": "200", "LINES": "50",
        }  # fmt: skip
        environment = {**os.environ, **words}
        environment.pop("PROMPT_COMMAND", None)
        self._terminal, other = pty.openpty()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=other, stdout=other, stderr=other, env=environment, cwd=ROOT, start_new_session=True,
            preexec_fn=_own_terminal,
        )  # fmt: skip
        os.close(other)
        self._heard = ""
        self.read_until(PROMPT.pattern, 30)

    def close(self) -> None:
        self._process.send_signal(signal.SIGHUP)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        os.close(self._terminal)

    def edits_with(self, program: str) -> None:
        """What the person does in their editor."""
        self._editor.write_text(program)
        self._editor.chmod(0o755)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def enter(self, line: str) -> None:
        for part in line.split("\n"):
            self.type(part + "\n")

    def read_until(self, pattern: str, patience: float) -> str:
        """All that is shown up to and with `pattern`; what is after it is kept for the next time."""
        deadline, wanted = time.monotonic() + patience, re.compile(pattern, re.MULTILINE)
        while (found := wanted.search(shown := ESCAPES.sub("", self._heard))) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._terminal], [], [], left)[0]:
                raise Strayed(f"after {patience:.0f} s there is no {pattern!r} in what is shown:\n{shown[-3000:]}")
            try:
                data = os.read(self._terminal, 65536)
            except OSError:
                raise Strayed(f"the shell ended:\n{shown[-3000:]}") from None
            text = data.decode("utf-8", "replace")
            sys.stdout.write(text)
            sys.stdout.flush()
            self._heard += text
        self._heard = shown[found.end() :]
        return shown[: found.end()]


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def walk(shell: Shell, page: str) -> list[tuple[str, float]]:
    """What each heading took, in seconds."""
    took: list[tuple[str, float]] = []
    for heading, command in commands(page):
        if not took or took[-1][0] != heading:
            print(f"\n== {heading}", flush=True)
            took.append((heading, 0.0))
        step, began = step_of(command), time.monotonic()
        if step.editor:
            shell.edits_with(step.editor)
        shell.enter(command)
        shown = ""
        for until, answer in step.acts:
            shown += shell.read_until(until, step.patience)
            shell.type(answer)
        if not step.inside:
            shown += shell.read_until(PROMPT.pattern, step.patience)
            code = int(PROMPT.findall(shown)[-1])
            if code not in step.codes:
                raise Strayed(f"{command!r} ended with {code}")
        for expected in step.shows:
            if not re.search(expected, shown, re.MULTILINE):
                raise Strayed(f"{command!r} did not show {expected!r}, but:\n{shown}")
        for unwanted in ("Traceback", *step.lacks):
            if re.search(unwanted, shown):
                raise Strayed(f"{command!r} showed {unwanted!r}:\n{shown}")
        took[-1] = (heading, took[-1][1] + time.monotonic() - began)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        shell = Shell(Path(place))
        try:
            took = walk(shell, PAGE.read_text())
        except Strayed as error:
            print(f"\n\nwalk-tutorial: {error}", file=sys.stderr)
            return 1
        finally:
            shell.close()
    print("\n\nwalked the whole tutorial:")
    for heading, seconds in took:
        print(f"  {seconds:6.1f} s  {heading}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
