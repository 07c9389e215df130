"""What a machine's or an instance's state allows, and the words when it does not. Conflicts carry whom they are about.

Pure but for the reads: whoever decides something from one of these decides it of the document as it was read.
"""

from hotvirt.kube import conditions
from hotvirt.kube.aggregated import RequestContext
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import BadRequest, Conflict, NotFound
from hotvirt.kube.resources import VMIS

FINAL = ("Succeeded", "Failed")


async def instance(client: Client, context: RequestContext) -> Document | None:
    """The VMI of this name, if there is one."""
    try:
        return await client.get(VMIS, context.name, context.namespace)
    except NotFound:
        return None


async def running(client: Client, context: RequestContext) -> Document:
    """The VMI, which runs; NotFound or Conflict otherwise."""
    vmi = await client.get(VMIS, context.name, context.namespace)
    require_running(vmi)
    return vmi


async def telling(client: Client, context: RequestContext) -> Document:
    """The VMI, which runs and whose agent can be asked about its guest."""
    vmi = await answering(client, context)
    if (vmi.get("status") or {}).get("fsFreezeStatus") == "frozen":
        raise refusal(
            vmi, "the guest's filesystems are frozen, and its agent tells nothing meanwhile: unfreeze it first"
        )
    return vmi


async def answering(client: Client, context: RequestContext) -> Document:
    """The VMI, which runs and whose agent was heard of."""
    vmi = await running(client, context)
    name = vmi["metadata"]["name"]
    if has(vmi, "Paused"):
        raise refusal(vmi, f"VMI is paused, so its guest cannot answer; let it go on: hotvirt unpause {name}")
    if not has(vmi, "AgentConnected"):
        raise refusal(
            vmi, "VMI does not have guest agent connected; install qemu-guest-agent in the guest, or wait for "
            f"its boot: kubectl wait vmi/{name} --for=condition=AgentConnected",
        )  # fmt: skip
    return vmi


def require_running(vmi: Document) -> None:
    phase = (vmi.get("status") or {}).get("phase") or "Pending"
    if phase != "Running":
        raise refusal(vmi, f"VMI is not running (its phase is {phase})")


def require_running_soon(vmi: Document) -> None:
    """As `require_running`, with another code for what may yet come to run: virtctl takes it as a reason to try again
    until it does."""
    phase = (vmi.get("status") or {}).get("phase") or "Pending"
    if phase not in ("Running", *FINAL):
        raise BadRequest(f"VMI is not running (its phase is {phase}); wait for it: hotvirt console waits by itself")
    require_running(vmi)


def require_started(vmi: Document) -> None:
    """For consoles and screens. virtctl asks again where a 400 tells that the guest does not run yet, and gives up at
    any other."""
    phase = (vmi.get("status") or {}).get("phase") or "Pending"
    if phase in ("Succeeded", "Failed"):
        raise refusal(vmi, f"VMI is not running (its phase is {phase})")
    if phase != "Running":
        raise BadRequest(f"VMI is not running yet (its phase is {phase})")


def is_owned(vmi: Document) -> bool:
    """By a VM, which then says what it has."""
    owners = vmi["metadata"].get("ownerReferences") or ()
    return any(owner.get("kind") == "VirtualMachine" and owner.get("controller") for owner in owners)


def has(obj: Document, condition: str) -> bool:
    return conditions.is_true((obj.get("status") or {}).get("conditions"), condition)


def has_acpi(vmi: Document) -> bool:
    """It has, unless it was switched off."""
    acpi = ((vmi["spec"].get("domain") or {}).get("features") or {}).get("acpi")
    return (acpi or {}).get("enabled") is not False


def device(vmi: Document, switch: str) -> bool:
    """A device that is there unless `devices.<switch>` is false."""
    return ((vmi["spec"].get("domain") or {}).get("devices") or {}).get(switch) is not False


def refusal(obj: Document, why: str, *, kind: str = "virtualmachineinstance") -> Conflict:
    name = obj["metadata"]["name"]
    return Conflict(
        f'Operation cannot be fulfilled on {kind}.kubevirt.io "{name}": {why}', group="kubevirt.io", kind=kind,
        name=name,
    )  # fmt: skip
