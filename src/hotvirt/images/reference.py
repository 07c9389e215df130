"""Names of images in registries: which host, which repository, which version. Pure.

A name is a registry's when it begins with a host: `quay.io/containerdisks/fedora:40`, `localhost:5000/x`. Any other is
one of this machine's (`catalog`); none is ever looked up on a registry that nobody named.
"""

import re
from ipaddress import ip_address
from typing import Literal

from msgspec import Struct

Policy = Literal["Always", "IfNotPresent", "Never"]
_REPOSITORY = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")


class Reference(Struct, frozen=True):
    """`digest` is "" unless the name has one; then the tag, if there is one too, says nothing."""

    host: str
    repository: str
    tag: str = "latest"
    digest: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, where plain HTTP is as good as TLS."""
        name = self.host.rpartition(":")[0] if ":" in self.host else self.host
        try:
            return name == "localhost" or ip_address(name).is_loopback
        except ValueError:
            return False

    @property
    def policy(self) -> Policy:
        """Kubernetes' default: a tag that moves is looked up each time."""
        return "Always" if self.tag == "latest" and not self.digest else "IfNotPresent"

    def at(self, digest: str = "") -> str:
        """As tools write it, by tag or by a digest."""
        digest = digest or self.digest
        return f"{self.host}/{self.repository}" + (f"@{digest}" if digest else f":{self.tag}")


def is_of_registry(name: str) -> bool:
    host, slash, _ = name.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")


def parse(name: str) -> Reference:
    """ValueError, as a sentence, when a registry's name is not well-formed."""
    host, _, rest = name.partition("/")
    rest, at, digest = rest.partition("@")
    repository, colon, tag = rest.partition(":")
    faults = {
        "host": not _HOST.fullmatch(host),
        "repository (lower-case letters, digits, - _ . and /)": not _REPOSITORY.fullmatch(repository),
        "tag": bool(colon) and not _TAG.fullmatch(tag),
        "digest (sha256: and 64 digits)": bool(at) and not _DIGEST.fullmatch(digest),
    }
    if wrong := [what for what, is_wrong in faults.items() if is_wrong]:
        raise ValueError(f"{name[:100]!r} is no image name: its {wrong[0]} is not well-formed")
    return Reference(host, repository, tag if colon else "latest", digest)
