"""Who asks about a guest just after the home came up again waits for it to be found, and nobody else waits."""

from types import SimpleNamespace

import pytest

from hotvirt.node.agent import is_awaited


def vmi(phase="Running", agent="True"):
    return {"status": {"phase": phase, "conditions": [{"type": "AgentConnected", "status": agent}]}}


def guest(*, gone=False, agent=None):
    return SimpleNamespace(is_gone=gone, answering=agent)


@pytest.mark.parametrize(
    ("told", "found", "answering", "awaited"),
    [
        (None, None, False, False),
        (vmi("Scheduled"), None, False, False),
        (vmi("Succeeded"), guest(gone=True), False, False),
        (vmi(), None, False, True),
        (vmi(), guest(gone=True), False, True),
        (vmi(), guest(), False, False),
        (vmi(), guest(), True, True),
        (vmi(agent="False"), guest(), True, False),
        (vmi(), guest(agent="answers"), True, False),
    ],
)
def test_what_the_instance_tells_of_and_is_not_found_yet_is_awaited(told, found, answering, awaited):
    assert is_awaited(told, found, answering=answering) is awaited
