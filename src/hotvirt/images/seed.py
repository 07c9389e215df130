"""Makes the small disk that cloud-init reads a machine's first settings from (NoCloud: an ISO labelled `cidata`).

`render` is pure and the same input gives the same bytes, so a restart of the home finds a guest's seed unchanged;
`write` puts it on disk whole or not at all, readable by its owner only: user-data often holds a password.
"""

import functools
import io
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotvirt.images import publish
from hotvirt.images.errors import ImageError

LABEL = "cidata"
LIMIT = 16 << 20
"""Of one file. KubeVirt's own limit for inline user-data is 2 KiB; from a Secret, 1 MiB is etcd's."""

_EPOCH = 315532800.0  # 1980-01-01, as zip and ISO tools use when they want no date
_LEAST = 256 << 10
_SHORT_NAMES = {"meta-data": "METADATA", "user-data": "USERDATA", "network-config": "NETCONF", "vendor-data": "VENDOR"}


def render(
    *,
    instance_id: str,
    hostname: str,
    user_data: str | bytes = "",
    network_config: str | bytes = "",
    meta_data: Mapping[str, str] | None = None,
) -> bytes:
    """The ISO's bytes. A new `instance_id` makes cloud-init take the guest for a new machine and set it up again."""
    # Any JSON document is YAML, and JSON has no surprises in quoting.
    meta = {"instance-id": instance_id, "local-hostname": hostname, **(meta_data or {})}
    files = {
        "meta-data": "".join(f"{key}: {json.dumps(value)}\n" for key, value in meta.items()).encode(),
        "user-data": _bytes(user_data),
    }
    if network_config:
        files["network-config"] = _bytes(network_config)
    for name, data in files.items():
        if len(data) > LIMIT:
            raise ImageError(f"cloud-init {name} has {len(data)} bytes, and {LIMIT} are allowed: make it shorter")
    return _iso(files)


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a rendered seed; replaces an older one at once."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        publish.sync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _iso(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    iso = _pycdlib().PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for name, data in files.items():
        short = f"/{_SHORT_NAMES[name]}.;1"
        iso.add_fp(io.BytesIO(data), len(data), short, rr_name=name, joliet_path=f"/{name}", file_mode=0o100444)
    iso.write_fp(out)
    iso.close()
    # Readers look for other filesystems' labels too, busybox up to 68 KiB in, and give up on a disk that ends before.
    return out.getvalue().ljust(_LEAST, b"\0")


class _StoppedClock:
    """Stands in for the `time` module inside pycdlib, which stamps every record with the present and offers no other
    way. Without it a seed would differ each time it is made."""

    struct_time = time.struct_time
    gmtime = staticmethod(time.gmtime)
    localtime = staticmethod(time.gmtime)
    strftime = staticmethod(time.strftime)
    strptime = staticmethod(time.strptime)

    @staticmethod
    def time() -> float:
        return _EPOCH


@functools.cache
def _pycdlib() -> Any:
    """The library, imported when the first seed is made, with its clock stopped. Nothing else here uses it."""
    import pycdlib
    from pycdlib import dates, headervd
    from pycdlib import pycdlib as core

    for module in (core, headervd, dates):
        module.time = _StoppedClock
    return pycdlib


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
