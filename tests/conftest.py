"""For every test of the project."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

import sockets_made

# CI tries the same examples each time, so that a change is judged by what it changed; here the search goes on.
settings.register_profile("ci", derandomize=True, database=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    # Who is started in a script's background ignores Ctrl+C, and so would each program that a test sends it to.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sockets_made.watch()
    config.pluginmanager.register(sockets_made)
    # looptime asks the policy for a loop around plain functions too. A policy that was never told of a loop makes
    # one then, which nobody closes; one that was told "none" makes none.
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for mark in ("guest", "server"):
        for path in {item.path for item in items if item.get_closest_marker(mark)}:
            if not _names(path, mark):
                raise pytest.UsageError(f"{path} has tests marked {mark}, and scripts/test looks for mark.{mark} in it")
    if not os.environ.get("HOTVIRT_LONG"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: set HOTVIRT_LONG"))
    # Files whose tests may take longest begin first, so that no worker is left alone with one at the end.
    patience: dict[Path, float] = {}
    for item in items:
        patience[item.path] = max(patience.get(item.path, 0), _patience(item))
    items.sort(key=lambda item: -patience[item.path])


def _names(path: Path, mark: str) -> bool:
    places = path, path.with_name("conftest.py")
    return any(f"mark.{mark}" in place.read_text() for place in places if place.exists())


def _patience(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    counts = item.get_closest_marker("guest") or item.get_closest_marker("server")
    return float(marker.args[0]) if marker and counts else 0.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hotvirt", "tests/api against another server (a kube-apiserver, say)")
    group.addoption("--server", metavar="URL", help="where it is, when that is not what the kubeconfig says")
    group.addoption("--kubeconfig", metavar="FILE", help="who asks it: a cluster-admin")
    group.addoption("--fuzz", metavar="N", type=int, default=500, help="how many requests are thrown at the API")
