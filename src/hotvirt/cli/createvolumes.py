"""Volumes of `create vm`: options become volumes, disks (where there is a boot order), DataVolume templates. Pure."""

from typing import Any

import click

from hotvirt.cli.params import Params, random_suffix

COMMON = ("type", "name", "size", "bootorder")
IMPORTS: dict[str, tuple[str, ...]] = {
    "blank": (), "gcs": ("url", "secretref"),
    "http": ("url", "secretref", "certconfigmap", "extraheaders", "secretextraheaders"),
    "imageio": ("url", "diskid", "secretref", "certconfigmap"), "pvc": ("src",),
    "registry": ("url", "imagestream", "pullmethod", "secretref", "certconfigmap"),
    "s3": ("url", "secretref", "certconfigmap"), "snapshot": ("src",),
    "vddk": ("url", "uuid", "thumbprint", "secretref", "backingfile", "initimageurl"), "ds": ("src",),
}  # fmt: skip
"""The parameters of each type beside COMMON."""
NEEDED = {
    "gcs": ("url",), "http": ("url",), "imageio": ("url", "diskid"), "s3": ("url",),
    "vddk": ("url", "uuid", "thumbprint", "secretref", "backingfile"),
}  # fmt: skip
FIELDS = {
    "url": "url", "secretref": "secretRef", "certconfigmap": "certConfigMap", "extraheaders": "extraHeaders",
    "secretextraheaders": "secretExtraHeaders", "diskid": "diskId", "imagestream": "imageStream",
    "pullmethod": "pullMethod", "uuid": "uuid", "thumbprint": "thumbprint", "backingfile": "backingFile",
    "initimageurl": "initImageURL",
}  # fmt: skip
LISTS = ("extraheaders", "secretextraheaders")
SIZE_OPTIONAL = ("pvc", "snapshot", "ds")
OLD_OPTIONS = {"volume_datasource": "ds", "volume_clone_pvc": "pvc", "volume_blank": "blank"}
INFERABLE = ("pvc", "registry", "snapshot")
BUILT_IN = "hotvirt/"


class Volumes:
    """What has been asked for so far."""

    def __init__(self) -> None:
        self.volumes: list[dict[str, Any]] = []
        self.disks: list[dict[str, Any]] = []
        self.templates: list[dict[str, Any]] = []
        self._orders: dict[int, str] = {}

    def add(self, option: str, name: str, source: dict[str, Any], boot_order: int | None = None) -> None:
        if any(volume["name"] == name for volume in self.volumes):
            raise click.BadParameter(
                f"there is a volume {name} already; give this another name", param_hint=f"--{option}"
            )
        self.volumes.append({"name": name, **source})
        if boot_order is None:
            return
        if boot_order in self._orders:
            raise click.BadParameter(
                f"bootorder:{boot_order} is {self._orders[boot_order]}'s already; number each disk once",
                param_hint=f"--{option}",
            )
        self._orders[boot_order] = name
        self.disks.append({"name": name, "bootOrder": boot_order})

    def on_virtio(self) -> None:
        """Every volume is a virtio disk; the default would be SATA."""
        ordered = {disk["name"]: disk for disk in self.disks}
        names = [volume["name"] for volume in self.volumes]
        self.disks = [{**ordered.get(name, {"name": name}), "disk": {"bus": "virtio"}} for name in names]

    def has_built_in(self) -> bool:
        """An image that hotvirt builds is among them: it has virtio's drivers, which are quicker than SATA's."""
        images = [(volume.get("containerDisk") or {}).get("image", "") for volume in self.volumes]
        return any(image.startswith(BUILT_IN) for image in images)

    def first(self) -> str:
        """The volume that is booted from; empty without any."""
        if self._orders:
            return self._orders[min(self._orders)]
        return str(self.volumes[0]["name"]) if self.volumes else ""

    def why_not_inferable(self, named: str | None) -> str:
        """Why an instancetype cannot be found out from volume `named`, or the first; empty when it can."""
        name = named or self.first()
        volume = next((each for each in self.volumes if each["name"] == name), None)
        if volume is None:
            return f"there is no volume {name}" if name else "there is no volume to infer from; add one"
        if "persistentVolumeClaim" in volume:
            return ""
        template = next((each for each in self.templates if each["metadata"]["name"] == name), None)
        if template is None:
            return f"volume {name} is no claim, so nothing can be inferred from it"
        source = template["spec"].get("source") or {}
        if "sourceRef" in template["spec"] or any(kind in source for kind in INFERABLE):
            return ""
        return f"volume {name} is imported from where nothing is said of it; that is known of types pvc, registry, ds"


def collect(vm: str, given: dict[str, Any]) -> Volumes:
    """All volumes but cloud-init's, in the order in which they are booted from."""
    volumes = Volumes()
    for number, text in enumerate(given["volume_containerdisk"]):
        params = Params("volume-containerdisk", text, ("src", "name", "bootorder"))
        name = params.label(params.get("name") or f"{vm}-containerdisk-{number}")
        image = {"containerDisk": {"image": params.need("src")}}
        volumes.add(params.option, name, image, params.boot_order())
    for text in given["volume_pvc"]:
        params = Params("volume-pvc", text, ("src", "name", "bootorder"))
        claim = params.own("claim")
        source = {"persistentVolumeClaim": {"claimName": claim}}
        volumes.add(params.option, params.label(params.get("name") or claim), source, params.boot_order())
    for text in [*_from_old_options(given), *given["volume_import"]]:
        _import(volumes, text)
    if text := given["volume_sysprep"]:
        params = Params("volume-sysprep", text, ("src", "type"))
        kind = params.choice("type", ("configmap", "secret"), default="configmap")
        field = "configMap" if kind == "configmap" else "secret"
        volumes.add(params.option, "sysprepdisk", {"sysprep": {field: {"name": params.own(kind)}}})
    return volumes


def _from_old_options(given: dict[str, Any]) -> list[str]:
    found = []
    for option, kind in OLD_OPTIONS.items():
        for text in given[option]:
            click.echo(f"warning: --{option.replace('_', '-')} is --volume-import=type:{kind},... by now", err=True)
            found.append(f"type:{kind},{text}")
    return found


def _import(volumes: Volumes, text: str) -> None:
    every = {*COMMON, *(name for names in IMPORTS.values() for name in names)}
    kind = Params("volume-import", text, sorted(every)).choice("type", IMPORTS, default="")
    params = Params("volume-import", text, (*COMMON, *IMPORTS[kind]))
    name = params.label(params.get("name") or f"imported-volume-{random_suffix()}")
    size = params.size() if kind in SIZE_OPTIONAL or params.need("size") else ""
    storage = {"resources": {"requests": {"storage": size}}} if size else {}
    volumes.templates.append({"metadata": {"name": name}, "spec": {**_source(kind, params), "storage": storage}})
    volumes.add(params.option, name, {"dataVolume": {"name": name}}, params.boot_order())


def _source(kind: str, params: Params) -> dict[str, Any]:
    if kind in ("pvc", "snapshot"):
        namespace, name = params.prefixed("src")
        if not namespace:
            raise params.wrong(f"type:{kind} needs the namespace too; write src:NAMESPACE/{name}")
        return {"source": {kind: {"namespace": namespace, "name": name}}}
    if kind == "ds":
        namespace, name = params.prefixed("src")
        place = {"namespace": namespace} if namespace else {}
        return {"sourceRef": {"kind": "DataSource", "name": name, **place}}
    for name in NEEDED.get(kind, ()):
        params.need(name)
    if kind == "registry":
        if bool(params.get("url")) == bool(params.get("imagestream")):
            raise params.wrong("type:registry needs one of url and imagestream")
        if params.get("pullmethod"):
            params.choice("pullmethod", ("pod", "node"), default="pod")
    fields: dict[str, Any] = {}
    for name in IMPORTS[kind]:
        if value := params.get(name):
            fields[FIELDS[name]] = value.split(";") if name in LISTS else value
    return {"source": {kind: fields}}
