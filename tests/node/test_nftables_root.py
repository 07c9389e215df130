"""The kernel's nftables, in a network namespace of the test's own; what is there is asked of `nft`."""

import subprocess

import pytest

from hotvirt.node import bridge, nftables, taps
from hotvirt.node.network import NetworkError
from hotvirt.node.nftables import Nftables
from hotvirt.node.rules import Place

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(bool(bridge.missing()), reason="no bridge network can be made here"),
]

OURS = {"family": "inet", "table": "ours", "name": "guard"}
TABLE = [{"add": {"table": {"family": "inet", "name": "ours"}}}, {"add": {"chain": OURS}}]
BAD = {"add": {"rule": {"family": "inet", "table": "ours", "chain": "nope", "expr": [{"accept": None}]}}}


def told():
    return subprocess.check_output(["nft", "list", "ruleset"], text=True, timeout=20)


def test_what_is_written_is_there_and_what_another_takes_away_is_seen_to_be_gone(own_network):
    tables = Nftables()
    assert not tables.has_chain("inet", "ours", "guard")
    tables.run({"nftables": TABLE})
    assert "chain guard" in told()
    assert tables.has_chain("inet", "ours", "guard")
    subprocess.run(["nft", "flush", "ruleset"], check=True, timeout=20)
    assert not tables.has_chain("inet", "ours", "guard")


def test_what_is_refused_changes_nothing_and_the_next_is_taken(own_network):
    tables = Nftables()
    with pytest.raises(NetworkError, match=r"nftables refused our rules: .*No such file or directory"):
        tables.run({"nftables": [*TABLE, BAD]})
    assert told() == ""
    with pytest.raises(NetworkError, match=r"nftables refused our rules: .*Unknown object"):
        tables.run({"nftables": [{"add": {"nonsense": {}}}]})
    tables.run({"nftables": TABLE})
    assert "chain guard" in told()


def test_who_lacks_the_library_is_told_what_to_install(monkeypatch):
    assert nftables.missing() == ""
    monkeypatch.setattr(nftables, "LIBRARY", "libnone.so.1")
    assert nftables.missing().endswith("apt-get install nftables")
    with pytest.raises(NetworkError, match="apt-get install nftables"):
        Nftables().run({"nftables": TABLE})


def test_taps_that_are_known_are_not_asked_about_and_those_that_went_are_not_told_of(own_network):
    place, other = Place("52:54:00:00:00:01", "10.213.0.2"), Place("52:54:00:00:00:02", "10.213.0.3")
    with open(taps.open_tap("hvt-a"), "rb"), open(taps.open_tap("hvt-b"), "rb"), open(taps.open_tap("hvt-c"), "rb"):
        taps.route("hvt-a", place)
        taps.route("hvt-b", place)
        known = {"hvt-b": other, "hvt-gone": other}
        assert taps.found("hvt-", known=known) == {"hvt-a": place, "hvt-b": other, "hvt-c": None}
    assert taps.found("hvt-", known=known) == {}
