"""What can go wrong between hotvirt and one QEMU process.

    QemuError
    ├── QemuMissing       no usable QEMU on this machine; the text says what to install
    ├── QemuGone          the process ended, or its QMP connection did; every waiting call gets it
    ├── QemuTimeout       no answer in time: QEMU hangs, or another client holds the QMP socket
    ├── QmpError          QEMU answered a command with an error
    │   └── NotThere      ... because no such device, node or object exists
    ├── LaunchError       QEMU did not start; `log` has what it last printed
    ├── HotplugError      a live change was refused or not taken: the sentence says by whom, and the mend
    └── AgentError        talking to the guest agent
        ├── AgentGone     the agent's socket closed
        ├── AgentTimeout  the guest did not answer in time
        ├── AgentRefused  the agent answered with an error (its text is the guest's: hostile)
        │   └── AgentLacks    ... the guest's agent does not have the command, or its administrator blocked it
        └── AgentNonsense what came was too long, or not the protocol

The error of the library underneath is the `__cause__`.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class QemuError(Exception):
    """Root of everything `hotvirt.qemu` raises on purpose."""


class QemuMissing(QemuError):
    pass


class QemuGone(QemuError):
    pass


class QemuTimeout(QemuError):
    pass


class QmpError(QemuError):
    """`description` is QEMU's own sentence, `kind` its error class (nearly always GenericError)."""

    def __init__(self, command: str, kind: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.command, self.kind, self.description = command, kind, description


class NotThere(QmpError):
    pass


class LaunchError(QemuError):
    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class HotplugError(QemuError):
    """`reason` is one word for a condition, such as NoFreePort or GuestRefused."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def refused_as(what: str) -> Iterator[None]:
    """A QmpError inside becomes a HotplugError (QemuRefused): `what` QEMU would not do, and why in its own words."""
    try:
        yield
    except QmpError as error:
        raise HotplugError("QemuRefused", f"{what}: {error.description}") from error


class AgentError(QemuError):
    pass


class AgentGone(AgentError):
    pass


class AgentTimeout(AgentError):
    pass


class AgentRefused(AgentError):
    def __init__(self, command: str, kind: str, description: str) -> None:
        super().__init__(f"the guest agent refused {command}: {description}")
        self.command, self.kind, self.description = command, kind, description


class AgentLacks(AgentRefused):
    pass


class AgentNonsense(AgentError):
    pass
