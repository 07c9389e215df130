"""Which errors are a person's business, and how each reads on one line."""

import re

from hotvirt.home.errors import HomeError
from hotvirt.kube.errors import ApiError, Invalid, Unreachable
from hotvirt.kube.kubeconfig import KubeconfigError


class CliError(Exception):
    """A command cannot do what was asked. The text says why and what to do."""


def explain(error: Exception) -> str | None:
    """One line for what a person can mend; None for what is a fault of ours and wants its traceback."""
    if isinstance(error, CliError | HomeError | KubeconfigError):
        return str(error)
    if isinstance(error, Unreachable):
        return f"{error}; {_reach(str(error))}"
    if isinstance(error, Invalid) and error.causes:
        return "; ".join(f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in error.causes)
    if isinstance(error, ApiError):
        return error.message
    return None


def _reach(said: str) -> str:
    """What mends an API that does not answer: one on this machine is a home, or forwarded. Pure."""
    if re.search(r"//(127\.|localhost[:/]|\[::1\])", said):
        return "is the home running? Start it with: hotvirt up --detach"
    return (
        "check the network and the kubeconfig (its contexts: kubectl config get-contexts), or choose one with --context"
    )
