"""For every test of the project."""

import asyncio


def pytest_configure() -> None:
    # looptime asks the policy for a loop around plain functions too. A policy that was never told of a loop makes
    # one then, which nobody closes; one that was told "none" makes none.
    asyncio.set_event_loop(None)
