"""Which cards of a running guest come, go and have their cable moved."""

import importlib.util
from pathlib import Path

import pytest

from hotvirt.api import attachments
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import ATTACHMENTS
from hotvirt.node import cards
from hotvirt.node.guest import Job
from hotvirt.node.network import NetworkError, UserNetwork
from hotvirt.node.surroundings import Surroundings
from hotvirt.qemu.state import MemoryState, Observed

_path = Path(__file__).parents[1] / "kube" / "memory_api.py"
_spec = importlib.util.spec_from_file_location("memory_api_of_cards", _path)
memory_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(memory_api)

POD = {"name": "default", "masquerade": {}}
LAN = {"name": "lan", "bridge": {}, "macAddress": "02:00:00:00:00:02"}
DEFINITION = {"metadata": {"name": "lan-net"}, "spec": {"config": '{"type": "bridge", "bridge": "br1"}'}}


class Guest:
    """What `cards` asks of a guest, written down rather than done."""

    def __init__(self, *, links=None, **jobs):
        self.jobs, self.links, self.asked = jobs, links if links is not None else {"default": True, "lan": True}, {}

    def want(self, kind, target, run):
        self.asked[kind] = target

    def drop(self, kind):
        self.jobs.pop(kind, None)


async def ask(*interfaces, nics=("default",), guest=None, definition=DEFINITION, said="lan-net"):
    guest = guest or Guest()

    async def look(name):
        assert name == said
        return definition

    networks = [{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": said}}]
    vmi = {"spec": {"domain": {"devices": {"interfaces": list(interfaces)}}, "networks": networks}}
    observed = Observed(status="running", running=True, version=(7, 2, 0), memory=MemoryState(boot=1), nics=nics)
    waiting = await cards.cards(vmi, guest, observed, UserNetwork(), look)
    return guest.asked, waiting


async def test_what_is_there_is_nothing_to_do():
    assert await ask(POD) == ({}, {})
    assert await ask(POD, LAN, nics=("default", "lan")) == ({}, {})


async def test_a_card_comes_onto_the_bridge_that_its_network_names():
    assert await ask(POD, LAN) == ({"card lan": ("attach", "br1")}, {})


@pytest.mark.parametrize("left", [[POD], [POD, {**LAN, "state": "absent"}]], ids=["unnamed", "absent"])
async def test_a_card_goes(left):
    assert await ask(*left, nics=("default", "lan")) == ({"card lan": ("detach",)}, {})


async def test_the_job_of_a_card_that_went_goes_with_it():
    guest = Guest(**{"card lan": Job(("detach",))})
    assert await ask(POD, guest=guest) == ({}, {})
    assert guest.jobs == {}


@pytest.mark.parametrize(
    ("links", "state", "asked"),
    [
        ({}, "up", {"card default": ("link", True)}), ({}, "down", {"card default": ("link", False)}),
        ({"default": True}, "down", {"card default": ("link", False)}), ({"default": False}, "down", {}),
        ({"default": True}, "up", {}),
    ],
)  # fmt: skip
async def test_a_cable_is_moved_when_it_is_not_known_to_be_there(links, state, asked):
    assert await ask({**POD, "state": state}, guest=Guest(links=links)) == (asked, {})


async def test_a_network_that_is_missing_or_of_another_type_is_said():
    _, waiting = await ask(POD, LAN, definition=None)
    assert waiting == {
        "lan": ("NetworkNotFound", "interface 'lan': there is no NetworkAttachmentDefinition lan-net: create it")
    }
    macvlan = {**DEFINITION, "spec": {"config": '{"type": "macvlan"}'}}
    _, waiting = await ask(POD, LAN, definition=macvlan)
    assert "spec.config is not of type bridge with a bridge's name" in waiting["lan"][1]


async def test_a_network_of_another_namespace_is_called_by_both_its_names():
    _, waiting = await ask(POD, LAN, definition=None, said="other/lan-net")
    assert waiting["lan"][1].endswith("there is no NetworkAttachmentDefinition other/lan-net: create it")
    macvlan = {**DEFINITION, "spec": {"config": '{"type": "macvlan"}'}}
    _, waiting = await ask(POD, LAN, definition=macvlan, said="other/lan-net")
    assert "NetworkAttachmentDefinition other/lan-net: spec.config is not of type bridge" in waiting["lan"][1]


async def test_a_network_is_looked_for_in_the_namespace_that_it_names():
    api = memory_api.MemoryApi()
    for namespace, bridge in (("default", "br1"), ("other", "br2")):
        config = {"config": f'{{"type": "bridge", "bridge": "{bridge}"}}'}
        await api.create(ATTACHMENTS, {"metadata": {"name": "lan"}, "spec": config}, namespace)
    names = ("lan", "default/lan", "other/lan", "x/lan")
    networks = [{"name": said, "multus": {"networkName": said}} for said in names]
    vmi = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"networks": networks}}
    around = Surroundings(api, SharedInformers(api), has_guest=lambda _: False)
    found = await cards.bridges(vmi, around.attachment(vmi))
    assert {name: bridge.name for name, bridge in found.items()} == {
        "lan": "br1", "default/lan": "br1", "other/lan": "br2",
    }  # fmt: skip


async def test_an_ordinary_users_home_says_what_it_lacks():
    with pytest.raises(NetworkError, match="need a home that runs as root"):
        await UserNetwork().second(LAN, bridge=attachments.Bridge(name="br1"), place=1, uid="u")


@pytest.mark.parametrize(
    ("config", "bridge"),
    [
        ('{"type": "bridge", "bridge": "br1"}', attachments.Bridge(name="br1")),
        (
            '{"type": "bridge", "bridge": "br1", "mtu": 9000, "vlan": 12, "ipam": {}}',
            attachments.Bridge(name="br1", mtu=9000, vlan=12),
        ),
        (
            '{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge", "bridge": "br2"}, {"type": "x"}]}',
            attachments.Bridge(name="br2"),
        ),
    ],
)
def test_a_bridge_by_its_config(config, bridge):
    assert attachments.bridge({"metadata": {"name": "n"}, "spec": {"config": config}}) == bridge


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('"ipam": {"type": "host-local"}', "ipam is not offered here: remove it"),
        ('"vlanTrunk": [{"id": 5}]', "vlanTrunk is not offered here: remove it, and write one vlan"),
        ('"macspoofchk": true', "macspoofchk is not offered here"),
        ('"vlan": 4095', "vlan 4095 is none: write a number from 1 to 4094"),
        ('"mtu": "9000"', "mtu '9000' is none: write a number from 68 to 65535"),
    ],
)
def test_a_config_that_asks_for_what_would_not_be_done(fields, said):
    config = f'{{"type": "bridge", "bridge": "br1", {fields}}}'
    with pytest.raises(attachments.AttachmentError, match=said):
        attachments.bridge({"metadata": {"name": "n"}, "spec": {"config": config}})


@pytest.mark.parametrize(
    "config", ["", "{", "[]", '"bridge"', "3", '{"type": "bridge"}', '{"type": "bridge", "bridge": ""}',
               '{"type": "bridge", "bridge": "a-name-that-is-too-long"}', '{"plugins": {}}', '{"plugins": [1]}'],
)  # fmt: skip
def test_a_config_that_names_no_bridge(config):
    with pytest.raises(attachments.AttachmentError, match=r"NetworkAttachmentDefinition n: spec\.config is not"):
        attachments.bridge({"metadata": {"name": "n"}, "spec": {"config": config}})
