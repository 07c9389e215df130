"""Makes small discs: what cloud-init reads a machine's first settings from (NoCloud, config drive), and files of an API
object as an ISO.

`render`, `config_drive` and `disc` are pure and the same input gives the same bytes, so a restart of the home finds a
guest's seed unchanged; `write` puts it on disk whole or not at all, readable by its owner only: user-data often holds a
password.
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
CONFIG_DRIVE = "config-2"
KINDS = ("cloudInitNoCloud", "cloudInitConfigDrive")
"""Volumes that are cloud-init's settings."""
LABEL_LENGTH, _JOLIET_LABEL = 32, 16
LIMIT = 16 << 20
"""Of one file. KubeVirt's own limit for inline user-data is 2 KiB; from a Secret, 1 MiB is etcd's."""

_EPOCH = 315532800.0  # 1980-01-01, as zip and ISO tools use when they want no date
_LEAST = 256 << 10
_SHORT_NAMES = {"meta-data": "METADATA", "user-data": "USERDATA", "network-config": "NETCONF", "vendor-data": "VENDOR"}
_DEEPEST = 7
"""Directories below each other, as ISO 9660 has it."""


def render(
    *,
    instance_id: str,
    hostname: str,
    user_data: str | bytes = "",
    network_config: str | bytes = "",
    meta_data: Mapping[str, Any] | None = None,
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
    _bounded(files)
    return _iso(files, LABEL)


def config_drive(
    *, instance_id: str, hostname: str, user_data: str | bytes = "", network_data: str | bytes = "",
    meta_data: Mapping[str, Any] | None = None,
) -> bytes:  # fmt: skip
    """The same settings in OpenStack's layout. Network data is passed on as it is."""
    meta: dict[str, Any] = {
        "hostname": hostname,
        "instance_id": instance_id,
        "local_hostname": hostname,
        "uuid": instance_id,
    }
    meta |= meta_data or {}
    files = {"meta_data.json": json.dumps(meta).encode(), "user_data": _bytes(user_data)}
    if network_data:
        files["network_data.json"] = _bytes(network_data)
    _bounded(files)
    return _iso({f"openstack/latest/{name}": data for name, data in files.items()}, CONFIG_DRIVE)


def disc(label: str, files: Mapping[str, bytes]) -> bytes:
    """Any files, by their paths, on a disc of that label."""
    if sum(map(len, files.values())) > LIMIT:
        raise ImageError(f"the files have more than {LIMIT} bytes together: take some out")
    for path in files:
        parts = path.split("/")
        if not all(parts) or {".", ".."} & set(parts) or len(parts) > _DEEPEST:
            raise ImageError(f"{path!r} is no path of a file on a disc: use up to {_DEEPEST} names with / between")
    return _iso(files, label)


def _bounded(files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        if len(data) > LIMIT:
            raise ImageError(f"cloud-init {name} has {len(data)} bytes, and {LIMIT} are allowed: make it shorter")


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


def _iso(files: Mapping[str, bytes], label: str) -> bytes:
    """Plain ISO names are short and made up where a name is not known; Linux and Windows read the long ones beside."""
    out = io.BytesIO()
    library = _pycdlib()
    iso = library.PyCdlib()
    try:
        iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label[:_JOLIET_LABEL])
        iso.pvd.volume_identifier = label.encode().ljust(LABEL_LENGTH)
        short = {"": ""}
        for path, data in files.items():
            *above, name = path.split("/")
            parent = ""
            for each in above:
                parent, upper = f"{parent}/{each}".lstrip("/"), parent
                if parent not in short:
                    short[parent] = f"{short[upper]}/D{len(short):06}"
                    iso.add_directory(short[parent], rr_name=each, joliet_path=f"/{parent}")
            known = _SHORT_NAMES.get(path) or f"F{len(short):07}"
            short[path] = f"{short[parent]}/{known}"
            iso.add_fp(
                io.BytesIO(data), len(data), f"{short[path]}.;1", rr_name=name, joliet_path=f"/{path}",
                file_mode=0o100444,
            )  # fmt: skip
        iso.write_fp(out)
    except library.pycdlibexception.PyCdlibException as error:
        raise ImageError(f"no disc can be made of these files: {error}") from error
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
