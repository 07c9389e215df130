"""The kubeconfigs that a home writes: one of its own beside its data, and, in its default place, the context `hotvirt`
in the person's own file."""

import logging
from pathlib import Path
from urllib.parse import urlsplit

from hotvirt.home.paths import Paths
from hotvirt.kube.kubeconfig import (
    Access,
    KubeconfigError,
    current_context,
    load,
    search_path,
    use_context,
    write_context,
)

NAME = "hotvirt"
BEFORE = "context-before"
"""File below the state directory with the name of the context that was current when ours became it."""
log = logging.getLogger("hotvirt.home")


def write_kubeconfigs(place: Paths, access: Access) -> str:
    """Writes them; returns what was done, for a person. A person's file that cannot be changed does not keep the home
    from starting."""
    write_context(place.kubeconfig, NAME, access)
    if not place.is_default:
        return f"kubeconfig is {place.kubeconfig}"
    theirs = search_path()[0]
    _remember(place, theirs)
    try:
        write_context(theirs, NAME, access)
    except (KubeconfigError, OSError) as error:
        log.warning("context not added", extra={"file": theirs, "error": error})
        return f"kubeconfig is {place.kubeconfig}; context {NAME} could not be added to {theirs}: {error}"
    return f"context {NAME} is in {theirs}"


def leave_context(place: Paths) -> str:
    """Once the home is down: the person's kubeconfig points again at what it did before the home started, or at
    nothing; another choice of theirs is left alone. Returns what was done, empty when nothing."""
    theirs = search_path()[0]
    if not place.is_default or not theirs.exists():
        return ""
    try:
        if current_context(theirs) != NAME:
            return ""
        before = use_context(theirs, _before(place))
    except (KubeconfigError, OSError) as error:
        log.warning("context not changed back", extra={"file": theirs, "error": error})
        return f"the current context of {theirs} is still {NAME}: {error}"
    return f"kubectl's context is {before} again" if before else f"{theirs} has no current context now"


def _remember(place: Paths, theirs: Path) -> None:
    """Notes which context was current before ours."""
    try:
        before = current_context(theirs)
        if before != NAME:
            (place.state / BEFORE).write_text(before)
    except (KubeconfigError, OSError) as error:
        log.warning("current context not noted", extra={"file": theirs, "error": error})


def _before(place: Paths) -> str:
    try:
        return (place.state / BEFORE).read_text().strip()
    except FileNotFoundError:
        return ""


def last_port(place: Paths) -> int:
    """The port that the kubeconfig names, so that copies of it stay good; 0 (any) before the first start."""
    try:
        return urlsplit(load(place.kubeconfig, NAME).server).port or 0
    except (KubeconfigError, ValueError):
        return 0
