"""Which cards of an edited VM come, go and have their cable moved while it runs, and what is left for a restart."""

import copy

import pytest

from hotvirt.controllers import liveupdate
from hotvirt.controllers.launcherpod import Settings
from hotvirt.controllers.livecards import named
from hotvirt.preconditions import Facts

POD = {"name": "default", "masquerade": {}, "macAddress": "02:00:00:00:00:01"}
LAN = {"name": "lan", "bridge": {}}
AT = "domain.devices.interfaces"


def spec(*interfaces, second=("lan",)):
    networks = [{"name": "default", "pod": {}}]
    networks += [{"name": name, "multus": {"networkName": f"{name}-net"}} for name in second]
    return {
        "domain": {
            "cpu": {"sockets": 1}, "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
            "devices": {"interfaces": list(interfaces)},
        },
        "networks": networks,
    }  # fmt: skip


def plan(started, wanted, has, *, attachments=("lan-net",)):
    """(interfaces the instance is to have or None when nothing changes, refusals)."""
    facts = Facts(attachments=frozenset(attachments))
    vm = {"metadata": {"name": "web"}, "spec": {"template": {"spec": wanted}}}
    vmi = {"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": has, "status": {}}
    before = copy.deepcopy(vmi)
    update = liveupdate.plan(vm, vmi, started, facts=facts, settings=Settings())
    assert vmi == before
    devices = (update.patch.get("domain") or {}).get("devices") or {}
    return devices.get("interfaces"), [str(refusal) for refusal in update.refusals]


ALONE = spec(POD, second=())
BOTH = spec(POD, {**LAN, "macAddress": "02:00:00:00:00:02", "state": "up"})
GONE = spec(POD, {**LAN, "macAddress": "02:00:00:00:00:02", "state": "absent"})


def test_nothing_edited_is_nothing_to_do():
    assert plan(ALONE, ALONE, ALONE) == (None, [])
    assert plan(spec(POD, LAN), spec(POD, LAN), BOTH) == (None, [])


def test_a_card_of_a_second_network_comes_with_an_address_that_stays():
    (pod, lan), refused = plan(ALONE, spec(POD, LAN), ALONE)
    assert refused == []
    assert pod == POD
    assert lan == {**LAN, "state": "up", "macAddress": lan["macAddress"]}
    assert plan(ALONE, spec(POD, LAN), ALONE)[0][1] == lan, "the same address each time"


def test_an_address_written_with_dashes_is_the_same_address():
    dashed = spec(POD, {**LAN, "macAddress": "02-00-00-00-00-0B"})
    (_, lan), refused = plan(ALONE, dashed, ALONE)
    assert (lan["macAddress"], refused) == ("02:00:00:00:00:0b", [])
    assert plan(dashed, dashed, spec(POD, lan)) == (None, [])


@pytest.mark.parametrize(
    ("started", "wanted"),
    [(spec(POD, LAN), spec(POD, {**LAN, "state": "absent"})), (BOTH, ALONE), (ALONE, ALONE)],
    ids=["said to be absent", "taken out of the template", "an edit taken back"],
)
def test_a_card_goes_and_keeps_its_place(started, wanted):
    assert plan(started, wanted, BOTH) == (GONE["domain"]["devices"]["interfaces"], [])


def test_a_card_that_went_comes_back_into_its_place():
    interfaces, refused = plan(spec(POD, LAN), spec(POD, LAN), GONE)
    assert refused == []
    assert [(each["name"], each.get("state", "up")) for each in interfaces] == [("default", "up"), ("lan", "up")]


@pytest.mark.parametrize(("was", "is_to_be"), [("up", "down"), ("down", "up")])
def test_every_cable_is_moved(was, is_to_be):
    has = spec({**POD, "state": was}, second=())
    wanted = spec({**POD, "state": is_to_be}, second=())
    assert plan(has, wanted, has) == ([{**POD, "state": is_to_be}], [])


def test_what_a_card_is_needs_a_restart():
    wanted = spec(POD, {**LAN, "model": "e1000e"})
    (interfaces, refused) = plan(spec(POD, LAN), wanted, BOTH)
    assert interfaces is None
    assert refused == [f"spec.template.spec.{AT}[lan].model: unset -> e1000e: it changes with a restart only"]


LAN_UP = {**LAN, "macAddress": "02:00:00:00:00:02", "state": "up"}


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({**LAN, "model": "e1000e"}, [f"{AT}[lan].model: unset -> e1000e"]),
        ({**LAN, "macAddress": "02:00:00:00:00:09"}, [f"{AT}[lan].macAddress: 02:00:00:00:00:02 -> 02:00:00:00:00:09"]),
        (LAN, []),
        ({**LAN, "macAddress": "02-00-00-00-00-02"}, []),
        ({**LAN, "macAddress": "02:00:00:00:00:02", "state": "up", "model": ""}, []),
    ],
    ids=["model", "address", "as it came", "address in other words", "said in other words"],
)  # fmt: skip
@pytest.mark.parametrize("started", [ALONE, None], ids=["after the start", "its revision is lost"])
def test_a_card_that_came_and_is_to_be_another_is_told(started, card, says):
    why = "take it out and add it again, or restart"
    assert plan(started, spec(POD, card), spec(POD, LAN_UP)) == (
        None, [f"spec.template.spec.{each}: {why}" for each in says],
    )  # fmt: skip


def test_a_card_that_came_and_is_to_join_another_network_is_told():
    wanted = spec(POD, LAN)
    wanted["networks"][1]["multus"]["networkName"] = "wan-net"
    interfaces, (refused,) = plan(ALONE, wanted, spec(POD, LAN_UP), attachments=("lan-net", "wan-net"))
    assert interfaces is None
    assert refused.startswith("spec.template.spec.networks[lan].multus.networkName: lan-net -> wan-net: take it out")
    gone = spec(POD, {**LAN, "model": "e1000e", "state": "absent"})
    assert plan(ALONE, gone, spec(POD, LAN_UP))[1] == [], "it goes"
    assert plan(ALONE, spec(POD, {**LAN, "model": "e1000e"}), GONE)[1] == [], "it comes as it is to be"


def test_a_network_that_nobody_serves_is_said_and_the_card_does_not_come():
    interfaces, (refused,) = plan(ALONE, spec(POD, LAN), ALONE, attachments=())
    assert interfaces is None
    assert "NetworkAttachmentDefinition lan-net does not exist" in refused


def test_the_networks_that_a_spec_names():
    assert list(named(spec(POD, LAN), "default")) == ["lan-net"]
    for said, known in (("default/lan", "lan"), ("other/lan", "other/lan")):
        assert list(named({"networks": [{"name": "lan", "multus": {"networkName": said}}]}, "default")) == [known]
    assert list(named({}, "default")) == []
