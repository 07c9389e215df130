"""The kubeconfigs that a home writes: one of its own beside its data, and, in its default place, the context `hotvirt`
in the person's own file."""

import logging
from urllib.parse import urlsplit

from hotvirt.home.paths import Paths
from hotvirt.kube.kubeconfig import Access, KubeconfigError, load, search_path, write_context

NAME = "hotvirt"
log = logging.getLogger("hotvirt.home")


def write_kubeconfigs(place: Paths, access: Access) -> str:
    """Writes them; returns what was done, for a person. A person's file that cannot be changed does not keep the home
    from starting."""
    write_context(place.kubeconfig, NAME, access)
    if not place.is_default:
        return f"kubeconfig is {place.kubeconfig}"
    theirs = search_path()[0]
    try:
        write_context(theirs, NAME, access)
    except (KubeconfigError, OSError) as error:
        log.warning("context not added", extra={"file": theirs, "error": error})
        return f"kubeconfig is {place.kubeconfig}; context {NAME} could not be added to {theirs}: {error}"
    return f"context {NAME} is in {theirs}"


def last_port(place: Paths) -> int:
    """The port that the kubeconfig names, so that copies of it stay good; 0 (any) before the first start."""
    try:
        return urlsplit(load(place.kubeconfig, NAME).server).port or 0
    except (KubeconfigError, ValueError):
        return 0
