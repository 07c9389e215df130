"""The disc by which cloud-init sets up a guest: what an instance says of it, with the secrets that it names.

Made when the guest starts, and not changed after.
"""

import base64
from typing import Any

from hotvirt.api import defaults
from hotvirt.images import seed
from hotvirt.kube.client import Document
from hotvirt.node import devicetags, sshkeys
from hotvirt.node.contents import ContentError
from hotvirt.node.shown import first_disks


async def disc(vmi: Document, volume: Document, lookup: Any) -> bytes | None:
    """Of a volume that is one; None for another. `lookup` is `volumes.Lookup`. ContentError when a secret lacks."""
    for kind in seed.KINDS:
        if source := volume.get(kind):
            return await _disc(vmi, source, lookup, kind=kind)
    return None


async def _disc(vmi: Document, source: Document, lookup: Any, *, kind: str) -> bytes:
    metadata, spec = vmi["metadata"], vmi["spec"]
    hostname = defaults.hostname(vmi)
    user = await _data(source, "userData", "secretRef", lookup)
    network = await _data(source, "networkData", "networkDataSecretRef", lookup)
    identity = f"{metadata['name']}.{metadata['namespace']}"
    tagged = devicetags.devices(vmi, first_disks(spec))
    more = {"devices": tagged} if tagged else {}
    try:
        more |= sshkeys.metadata(await sshkeys.of_seed(spec, kind, lookup), kind)
    except sshkeys.KeysError as error:
        raise ContentError(str(error)) from error
    if kind == "cloudInitConfigDrive":
        return seed.config_drive(
            instance_id=identity, hostname=hostname, user_data=user, network_data=network, meta_data=more
        )
    return seed.render(instance_id=identity, hostname=hostname, user_data=user, network_config=network, meta_data=more)


async def _data(source: Document, what: str, ref: str, lookup: Any) -> bytes:
    if text := source.get(what):
        return str(text).encode()
    if encoded := source.get(f"{what}Base64"):
        return base64.b64decode(encoded)
    if not (secret_name := (source.get(ref) or {}).get("name")):
        return b""
    secret = await lookup("secret", secret_name)
    data: dict[str, Any] = (secret or {}).get("data") or {}
    # KubeVirt reads both spellings.
    value = data.get(what.lower()) or data.get(what)
    if value is None:
        problem = "does not exist" if secret is None else f"has no key {what.lower()}"
        raise ContentError(f"{ref} is {secret_name!r}, but that Secret {problem}")
    return base64.b64decode(value)
