"""memorydump and removememorydump: what is written, and what is refused with which words."""

import pytest

from hotvirt.kube.errors import BadRequest, Conflict
from hotvirt.webhooks import memorydump


def vm(**request):
    return {"metadata": {"name": "web"}, "status": {"memoryDumpRequest": request} if request else {}}


def vmi(memory="1Gi", **spec):
    return {"metadata": {"name": "web"}, "spec": {"domain": {"resources": {"requests": {"memory": memory}}}, **spec}}


def claim(size="2Gi", **spec):
    return {"metadata": {"name": "core"}, "spec": {"resources": {"requests": {"storage": size}}, **spec}}


def test_the_claim_asked_for_or_the_one_of_last_time():
    assert memorydump.claim_of(vm(), {"claimName": "core"}) == "core"
    assert memorydump.claim_of(vm(claimName="core", phase="Completed"), {}) == "core"
    assert memorydump.claim_of(vm(claimName="core", phase="Completed"), {"claimName": "core"}) == "core"
    with pytest.raises(BadRequest, match="requires claim name"):
        memorydump.claim_of(vm(), {})
    with pytest.raises(Conflict, match=r"pvc \[other\] while pvc \[core\] is still associated"):
        memorydump.claim_of(vm(claimName="core", phase="Completed"), {"claimName": "other"})


CLAIMS = {
    "block": (claim(volumeMode="Block"), vmi(), "filesystem pvc"),
    "read only": (claim(accessModes=["ReadOnlyMany"]), vmi(), "can't be read only"),
    "small": (claim("1Gi"), vmi(), r"pvc size \[1Gi\] should be bigger than"),
    "no size": (claim(None), vmi(), r"pvc size \[0\] should be bigger than"),
    "nothing requested": (claim("50Mi"), vmi(None), r"pvc size \[50Mi\] should be bigger than \[100Mi\]"),
    "a disk": (
        claim(), vmi(volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "core"}}]), "it is volume 'd'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "instance", "says"), CLAIMS.values(), ids=CLAIMS)
def test_claims_that_will_not_do(given, instance, says):
    with pytest.raises(Conflict, match=says):
        memorydump.check_claim(given, instance)


def test_a_claim_that_will_do():
    memorydump.check_claim(claim("1200Mi", accessModes=["ReadWriteOnce"]), vmi())


def test_a_new_request_takes_the_place_of_one_that_is_over():
    assert memorydump.request(vm(), "core") == {
        "status": {"memoryDumpRequest": {"claimName": "core", "phase": "Associating"}}
    }
    before = vm(claimName="core", phase="Failed", message="no", fileName="x")
    assert memorydump.request(before, "core")["status"]["memoryDumpRequest"] == {
        "claimName": "core", "phase": "Associating", "message": None, "fileName": None,
    }  # fmt: skip
    for phase in ("Associating", "InProgress", "Unmounting"):
        with pytest.raises(Conflict, match="already in progress"):
            memorydump.request(vm(claimName="core", phase=phase), "core")
    with pytest.raises(Conflict, match="a remove memory dump request is in progress"):
        memorydump.request(vm(claimName="core", phase="Dissociating", remove=True), "core")


def test_removing():
    with pytest.raises(Conflict, match="no association found"):
        memorydump.remove(vm())
    with pytest.raises(Conflict, match="already exists"):
        memorydump.remove(vm(claimName="core", phase="Dissociating", remove=True))
    assert memorydump.remove(vm(claimName="core", phase="InProgress")) == {
        "status": {"memoryDumpRequest": {"phase": "Dissociating", "remove": True}}
    }
