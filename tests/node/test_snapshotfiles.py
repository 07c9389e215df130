"""Snapshots on disk are whole or not there, and go disk by disk."""

from hotvirt.kube.informer import Key
from hotvirt.node.places import Places
from hotvirt.node.snapshotfiles import About, DiskAbout, Group, by_handle, found, handle
from hotvirt.node.snapshotobjects import group_of, handle_of, members


def test_a_group_appears_when_it_is_whole(tmp_path):
    places = Places(pods=tmp_path / "p", images=tmp_path / "i", volumes=tmp_path / "v")
    key = Key("shop", "abc")
    group = Group(places, key)
    disks = {name: DiskAbout(uid=name, claim=name, file=f"{name}.raw", format="raw", size=4) for name in ("a", "b")}
    plan = About(disks=disks, created="now", vmi="web", online=("a",))
    group.begin(plan)
    assert (group.plan(), group.about()) == (plan, None)
    assert not group.has_all(plan)
    for name in disks:
        (group.part / f"{name}.raw").write_text(name)
    assert group.has_all(plan)
    assert group.image("a") is None
    group.show()
    assert (group.plan(), group.about()) == (None, plan)
    assert found(places) == [key]
    where = by_handle(places, handle(key, "a"))
    assert where
    path, about = where[0].image(where[1])
    assert (path.read_text(), about) == ("a", disks["a"])
    group.remove("a")
    assert group.image("a") is None
    assert group.image("b") is not None
    group.remove("b")
    assert found(places) == []


def test_a_handle_leads_nowhere_else(tmp_path):
    places = Places(pods=tmp_path / "p", images=tmp_path / "i", volumes=tmp_path / "v")
    for text in ("", "a/b", "../a.b/c", "a.b/../c", "a.b/", "/etc.d/x"):
        assert by_handle(places, text) is None, text


def test_snapshots_of_one_instant():
    plain = {"metadata": {"namespace": "shop", "name": "one", "uid": "u"}}
    assert (group_of(plain), members(plain)) == (Key("shop", "u"), {"one"})
    notes = {"snapshot.hotvirt.io/group": "g", "snapshot.hotvirt.io/members": "one,two"}
    one = {"metadata": {**plain["metadata"], "annotations": notes}}
    assert (group_of(one), members(one)) == (Key("shop", "g"), {"one", "two"})
    evil = {"metadata": {**plain["metadata"], "annotations": {**notes, "snapshot.hotvirt.io/group": "../x"}}}
    assert group_of(evil) == Key("shop", "u")


def test_a_content_is_of_the_snapshot_that_it_names_alone():
    content = {"spec": {"volumeSnapshotRef": {"uid": "u"}, "source": {"snapshotHandle": "shop.g/one"}}}
    mine, other = (
        {"metadata": {"uid": uid}, "status": {"boundVolumeSnapshotContentName": "c"}} for uid in ("u", "other")
    )  # fmt: skip
    assert handle_of(mine, {"c": content}) == "shop.g/one"
    assert handle_of(other, {"c": content}) == ""
    assert handle_of(mine, {}) == ""
