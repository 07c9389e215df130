"""Where the node agent keeps things. One directory a launcher pod, named by the pod's uid, holds all of a guest."""

import shutil
from pathlib import Path

from msgspec import Struct


class Places(Struct, frozen=True):
    """`pods` is below the run directory (its sockets' paths must stay short); the others last."""

    pods: Path
    images: Path
    volumes: Path

    @property
    def machines(self) -> Path:
        """What machines keep while they are off, see `machinestate`."""
        return self.volumes.parent / "machines"

    def pod(self, uid: str) -> "PodPlace":
        return PodPlace(self.pods / uid)


class PodPlace(Struct, frozen=True):
    """One pod's directory. It outlives the home: a new one finds the guest by what is in here."""

    directory: Path

    @property
    def launch(self) -> Path:
        """The launch receiver's socket."""
        return self.directory / "launch.sock"

    @property
    def pid(self) -> Path:
        """`hotvirt.qemu.process.Identity` as JSON."""
        return self.directory / "pid"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def qmp(self) -> Path:
        """There from the moment QEMU is about to be started."""
        return self.directory / "qmp.sock"

    @property
    def agent(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def serial(self) -> Path:
        return self.directory / "serial.sock"

    @property
    def outcome(self) -> Path:
        """`Succeeded` or `Failed`, written before QEMU is told to quit: an exit status is lost with the home."""
        return self.directory / "outcome"

    @property
    def frozen(self) -> Path:
        """When the guest's filesystems are thawed by themselves, a stamp."""
        return self.directory / "frozen"

    @property
    def reboot(self) -> Path:
        """Until when a guest that goes off does so to be rebooted, a stamp."""
        return self.directory / "reboot"

    @property
    def dump(self) -> Path:
        """The file that QEMU was last told to dump the guest's memory into, by name."""
        return self.directory / "dump"

    @property
    def cut_off(self) -> Path:
        """There once the guest's power was cut, as its time to shut down was over."""
        return self.directory / "cut-off"

    @property
    def unhealthy(self) -> Path:
        """There once its liveness probe failed, see `hotvirt.node.unhealthy`."""
        return self.directory / "unhealthy"

    @property
    def cpus(self) -> Path:
        """The host's CPUs that are this guest's alone, as JSON, see `hotvirt.node.dedicated`."""
        return self.directory / "cpus"

    @property
    def tpm_log(self) -> Path:
        """What its TPM printed."""
        return self.directory / "tpm.log"

    @property
    def file_systems_log(self) -> Path:
        """What the servers of its file systems printed."""
        return self.directory / "virtiofs.log"

    def served(self, volume: str) -> Path:
        """The directory that the guest sees of a volume that is made on the spot."""
        return self.directory / "served" / volume

    def server(self, volume: str) -> Path:
        """The process that serves it, `hotvirt.qemu.process.Identity` as JSON."""
        return self.directory / f"virtiofs-{volume}"

    @property
    def helper_logs(self) -> tuple[Path, ...]:
        """Of all that may run beside QEMU."""
        return (self.tpm_log, self.file_systems_log)

    @property
    def console_log(self) -> Path:
        """What the guest printed on its serial port."""
        return self.directory / "console.log"

    @property
    def console_pipe(self) -> Path:
        """Through which QEMU tells of it."""
        return self.directory / "console.pipe"

    def disk(self, name: str) -> Path:
        return self.directory / f"disk-{name}"

    def prepare(self) -> None:
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
