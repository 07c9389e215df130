"""Which errors are a person's business, and how each reads on one line."""

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
        return f"{error}; is the home running? Start it with: hotvirt up --detach"
    if isinstance(error, Invalid) and error.causes:
        return "; ".join(f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in error.causes)
    if isinstance(error, ApiError):
        return error.message
    return None
