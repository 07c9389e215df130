"""The configuration that a KubeVirt object gives the installation, as far down as more than one reader goes. Pure."""

from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]


def of(kubevirt: Mapping[str, Any] | None) -> Document:
    """`spec.configuration`; empty where it, or the object, is not there."""
    return ((kubevirt or {}).get("spec") or {}).get("configuration") or {}


def developer(kubevirt: Mapping[str, Any] | None) -> Document:
    """`spec.configuration.developerConfiguration`: feature gates and overcommitment."""
    return of(kubevirt).get("developerConfiguration") or {}
