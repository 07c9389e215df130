"""Which feature gates a KubeVirt object turns on and off."""

from hotvirt.api import gates


def kubevirt(**developer):
    return {"spec": {"configuration": {"developerConfiguration": developer}}}


def test_a_gate_is_listed_by_any_of_its_names_unless_it_is_off_as_well():
    both = kubevirt(featureGates=["HotPlugVolumes", "HostDisk"], disabledFeatureGates=["HostDisk"])
    assert gates.listed(both) == {gates.TEMPORARY_VOLUMES}


def test_what_is_off_is_told_by_the_name_that_stands_there():
    assert gates.disabled(kubevirt(disabledFeatureGates=["LiveUpdate"])) == {"LiveUpdate"}


def test_nothing_is_said_where_nothing_is_there():
    for obj in (None, {}, {"spec": None}, {"spec": {"configuration": None}}, kubevirt(featureGates=None)):
        assert gates.listed(obj) == gates.disabled(obj) == frozenset()
