"""Whole homes and a registry for storage tests: those of the guest tests."""

from guest_homes import home, registry

__all__ = ["home", "registry"]
