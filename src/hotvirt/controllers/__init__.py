"""One file a controller: VirtualMachine -> VirtualMachineInstance -> launcher pod, and the embedded home's scheduler.

`run(client)` is all of them on one event loop, until cancelled. They may stop at any instant: what they know is in the
API, and they begin again from there.
"""

from hotvirt.controllers.run import run

__all__ = ("run",)
