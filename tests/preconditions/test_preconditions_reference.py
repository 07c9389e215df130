"""The reference page says what the judgements say, of every fact there is."""

import pytest

from hotvirt.preconditions import reference
from hotvirt.preconditions.check import FACTS


def test_the_page_is_current():
    assert reference.PAGE.read_text() == reference.render(), "run: python -m hotvirt.preconditions.reference"


@pytest.mark.parametrize("title", reference._CHANGES)
def test_every_fact_is_on_the_page_and_does_not_hold_there(title):
    change, _ = reference._CHANGES[title]
    found = reference.findings(change)
    assert len(found) == len(FACTS[type(change)])
    never_in_the_way = {"memory.alignment"}
    assert {each.id for each in found if each.status == "pass"} <= never_in_the_way
    assert all(each.required for each in found)
