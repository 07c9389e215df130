"""Where a home keeps its things. Pure but for `prepare`, which makes the directories.

root            /var/lib/hotvirt         sockets in /run/hotvirt
ordinary user   ~/.local/share/hotvirt   sockets in its run/
--home DIR, or $HOTVIRT_HOME             everything below DIR, so that many homes live side by side
"""

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from hotvirt.home.errors import HomeError

# A unix socket's path is at most 107 bytes; the longest name below the run directory is pods/<uid>/launch.sock.
LONGEST_SOCKET = len("/pods/00000000-0000-0000-0000-000000000000/console-log.sock")
SOCKET_LIMIT = 107


class Paths(Struct, frozen=True):
    """`is_default` False: the home was named explicitly, and leaves the person's own kubeconfig alone."""

    state: Path
    run: Path
    is_default: bool

    @property
    def database(self) -> Path:
        return self.state / "state.db"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def images(self) -> Path:
        return self.state / "images"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def kubeconfig(self) -> Path:
        """Administrator's kubeconfig of this home alone."""
        return self.state / "kubeconfig"

    @property
    def lock(self) -> Path:
        return self.state / "home.lock"

    @property
    def log(self) -> Path:
        return self.state / "home.log"

    @property
    def pods(self) -> Path:
        return self.run / "pods"

    def prepare(self) -> None:
        """Makes what is missing. State holds keys: for its owner alone. The run directory may be passed through
        (QEMU runs as its own user), not listed."""
        too_long = len(os.fsencode(self.run)) + LONGEST_SOCKET - SOCKET_LIMIT
        if too_long > 0:
            raise HomeError(
                f"home directory {self.state} is {too_long} characters too long for unix sockets below it; "
                "choose a shorter one with --home or HOTVIRT_HOME"
            )
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            self.state.chmod(0o711)
            self.pki.mkdir(mode=0o700, exist_ok=True)
            for each in (self.images, self.volumes):
                each.mkdir(mode=0o711, exist_ok=True)
            self.run.mkdir(parents=True, exist_ok=True)
            self.pods.mkdir(mode=0o711, exist_ok=True)
        except OSError as error:
            raise HomeError(
                f"cannot make {error.filename or self.state}: {error.strerror}; choose another place with --home"
            ) from error


def resolve(named: str | None, *, env: Mapping[str, str], uid: int) -> Paths:
    """`named` is --home; it wins over $HOTVIRT_HOME, which wins over the user's default place."""
    if chosen := named or env.get("HOTVIRT_HOME"):
        state = Path(chosen).expanduser().absolute()
        return Paths(state, state / "run", is_default=False)
    if uid == 0:
        return Paths(Path("/var/lib/hotvirt"), Path("/run/hotvirt"), is_default=True)
    data = Path(env.get("XDG_DATA_HOME") or Path(env.get("HOME") or "~").expanduser() / ".local" / "share")
    return Paths(data / "hotvirt", data / "hotvirt" / "run", is_default=True)


def here(named: str | None = None) -> Paths:
    """`resolve` for this process."""
    return resolve(named, env=os.environ, uid=os.geteuid())
