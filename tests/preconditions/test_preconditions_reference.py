"""The reference page says what the judgements say, of every fact there is."""

import pytest

from hotvirt.preconditions import reference
from hotvirt.preconditions.check import FACTS


def test_the_page_is_current():
    assert reference.PAGE.read_text() == reference.render(), "run: python -m hotvirt.preconditions.reference"


@pytest.mark.parametrize("title", reference._CHANGES)
def test_every_fact_is_on_the_page_and_does_not_hold_there(title):
    changes, _ = reference._CHANGES[title]
    found = reference.findings(title)
    assert len(found) == len(FACTS[type(changes[0])])
    never_in_the_way = {"memory.alignment"}
    assert {id_ for id_, each in found.items() if each.status == "pass"} <= never_in_the_way
    assert all(each.required for each in found.values())


def test_every_kind_of_change_has_a_section():
    assert {type(changes[0]) for changes, _ in reference._CHANGES.values()} == FACTS.keys()


def test_most_of_upstreams_facts_fail_on_the_page():
    found = [each for section in reference._upstream().values() for each in section]
    assert {each.id for each in found if each.status == "unknown"} == set()
    assert {each.id for each in found if each.status == "pass"} == {"disk.claim"}
