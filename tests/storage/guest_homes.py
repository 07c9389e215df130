"""What the guest tests have that storage tests use too: whole homes, manifests, a registry."""

import importlib.util
from pathlib import Path


def _loaded(name):
    path = Path(__file__).parents[1] / "guest" / name
    spec = importlib.util.spec_from_file_location(f"guest_homes_{path.stem}", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


_conftest = _loaded("conftest.py")
Home, home, manifest = _conftest.Home, _conftest.home, _conftest.manifest
registry = _loaded("test_home_volumes.py").registry
