"""A new home's keys, made by a process that goes away again.

What makes them (`cryptography`) is 13 MiB for as long as its process runs, a seventh of the whole home, and it is
needed once in ten years. A later start that finds one lacking makes it itself (`Pki`).
"""

import os
from pathlib import Path

from hotvirt.server.pki import Pair, Pki


def administrator(pki: Pki) -> Pair:
    return pki.client("hotvirt-admin", ("system:masters",))


def make(directory: Path) -> None:
    """Nothing, where there are any. Before threads and the loop begin, as it forks. What cannot be made is left for the
    home to make, which then meets the reason itself and says it."""
    if any(directory.glob("*.crt")):
        return
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        pki = Pki(directory)
        pki.server()
        administrator(pki)
    finally:
        os._exit(0)  # nothing of the home's own is ended here: files, locks, its socket to whoever started it
