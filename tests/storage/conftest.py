"""Whole homes and a registry for storage tests: those of the guest tests; and what tests of data volumes share."""

from data_volumes import packed, shared
from guest_homes import home, registry

__all__ = ["home", "packed", "registry", "shared"]
