"""Whole homes for storage tests: those of the guest tests."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("guest_homes", Path(__file__).parents[1] / "guest" / "conftest.py")
assert _spec
assert _spec.loader
_guest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_guest)
home = _guest.home
