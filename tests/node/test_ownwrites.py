"""Own writes of a status are no cause to look at a guest; another's are, whenever they come."""

from hotvirt.kube.informer import Change, key_of
from hotvirt.node.ownwrites import OwnWrites


def vmi(version):
    return {"metadata": {"name": "web", "namespace": "a", "resourceVersion": version}}


KEY = key_of(vmi("1"))


def modified(old, new, **more):
    return Change("MODIFIED", vmi(old), vmi(new), **more)


def test_an_event_after_the_writes_answer_is_known_by_its_version():
    own = OwnWrites(lambda key: None)
    with own.writing(KEY) as written:
        written.version = "7"
    assert own.is_own(modified("6", "7"))
    assert not own.is_own(modified("7", "8"))
    assert not own.is_own(Change("DELETED", vmi("7"), None))
    assert not own.is_own(modified("7", "7", relisted=True))


def test_an_event_before_the_writes_answer_is_kept_back_and_forgotten():
    woken = []
    own = OwnWrites(woken.append)
    with own.writing(KEY) as written:
        assert own.is_own(modified("6", "7"))
        written.version = "7"
    assert woken == []


def test_another_write_meanwhile_brings_the_key_up_afterwards():
    woken = []
    own = OwnWrites(woken.append)
    with own.writing(KEY) as written:
        own.is_own(modified("6", "7"))
        own.is_own(modified("7", "8"))
        written.version = "7"
    assert woken == [KEY]


def test_a_write_that_failed_or_asks_for_more_brings_the_key_up():
    woken = []
    own = OwnWrites(woken.append)
    with own.writing(KEY):
        own.is_own(modified("6", "7"))
    assert woken == [KEY]
    assert not own.is_own(modified("6", "7"))


def test_what_is_forgotten_is_no_ones():
    own = OwnWrites(lambda key: None)
    with own.writing(KEY) as written:
        written.version = "7"
    own.forget(KEY)
    assert not own.is_own(modified("6", "7"))
