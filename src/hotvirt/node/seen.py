"""What the node agent knows of a running guest when it tells of it."""

from msgspec import Struct

from hotvirt.kube.client import Document
from hotvirt.node.guest import AgentView, Job
from hotvirt.node.guestkernel import Kernel
from hotvirt.qemu.state import Observed


class Seen(Struct, frozen=True, kw_only=True):
    """One look at a guest."""

    observed: Observed
    view: AgentView | None
    vcpus: int | None
    settled: int | None
    jobs: dict[str, Job]
    volume_errors: dict[str, tuple[str, str]]
    """Volume name -> (reason, message) of hot-plug volumes that cannot be attached yet."""
    kernel: Kernel | None = None
    claims: dict[str, Document] = {}
    """Volume name -> its claim."""
    links: dict[str, bool] = {}
    """Interface -> whether its cable is in."""
    unheard: bool = False
    """Whether the agent may answer and was not heard yet: what was published of it stays."""
    held: str = ""
    """Why it stands still although nobody paused it, see `holding`."""
    card_errors: dict[str, tuple[str, str]] = {}
    """Interface -> (reason, message) of cards that cannot come yet."""
