"""image-upload: a disk image of this machine into a DataVolume or claim of the home's, as virtctl's."""

import http.client
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import click

from hotvirt.api.quantity import QuantityError, format_bytes, parse_bytes
from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.progress import Line
from hotvirt.cli.targets import connected
from hotvirt.cli.verbs import verb
from hotvirt.cli.waiting import wait_for
from hotvirt.kube.client import Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import CDI_CONFIGS, CLAIMS, DATA_SOURCES, DATA_VOLUMES

BIND_NOW = "cdi.kubevirt.io/storage.bind.immediate.requested"
UPLOAD = "cdi.kubevirt.io/storage.upload.target"
CONTENT = "cdi.kubevirt.io/storage.contentType"
PHASE, READY = "cdi.kubevirt.io/storage.pod.phase", "cdi.kubevirt.io/storage.pod.ready"
LABELS = "instancetype.kubevirt.io"
TOKENS = "/apis/upload.cdi.kubevirt.io/v1beta1/namespaces/{}/uploadtokenrequests"
_CHUNK = 1 << 20
PROCESSING = 3600.0


@verb("image-upload")
@click.argument("kind", type=click.Choice(["dv", "pvc"]))
@click.argument("name")
@click.option(
    "--image-path", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The image: raw, qcow2, vmdk, vdi, vhdx or iso, packed with gzip, xz or zstd or not.",
)  # fmt: skip
@click.option("--size", help="Of the disk, such as 10Gi (default: what the file is, for one that is not packed).")
@click.option("--storage-class", metavar="NAME", help="Of the claim (default: the home's default).")
@click.option(
    "--access-mode", type=click.Choice(["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]),
    help="Of the claim (default: what its storage class offers).",
)  # fmt: skip
@click.option("--pvc-size", "size", hidden=True, help="As --size.")
@click.option("--block-volume", "volume_mode", flag_value="block", hidden=True, help="As --volume-mode=block.")
@click.option("--volume-mode", type=click.Choice(["block", "filesystem"]), help="Of the claim.")
@click.option("--force-bind", is_flag=True, help="Do not wait for a machine that uses it.")
@click.option("--no-create", is_flag=True, help="It is there already and waits for an upload.")
@click.option("--datasource", is_flag=True, help="Make a DataSource of the same name, to make copies by.")
@click.option("--default-instancetype", metavar="NAME", help="For machines that infer theirs from this disk.")
@click.option("--default-instancetype-kind", metavar="KIND", help="Of that one (default: the cluster's).")
@click.option("--default-preference", metavar="NAME", help="For machines that infer theirs from this disk.")
@click.option("--default-preference-kind", metavar="KIND", help="Of that one (default: the cluster's).")
@click.option("--uploadproxy-url", metavar="URL", help="Where the upload proxy is (default: as the home says).")
@click.option("--insecure", is_flag=True, help="Do not check the upload proxy's certificate.")
@click.option("--wait-secs", type=int, default=300, show_default=True, help="How long to wait until it can begin.")
@connected
def image_upload(
    api: Api, *, kind: str, name: str, image_path: Path, size: str | None, storage_class: str | None,
    access_mode: str | None, volume_mode: str | None, force_bind: bool, no_create: bool, datasource: bool,
    uploadproxy_url: str | None, insecure: bool, wait_secs: int, **defaults: str | None,
) -> None:  # fmt: skip
    """Upload a disk image into a new DataVolume (dv) or claim (pvc).

    \b
    Examples:
      hotvirt image-upload dv fedora --size=10Gi --image-path=fedora.qcow2 --force-bind
      hotvirt image-upload pvc data --size=1Gi --image-path=data.img.gz --storage-class=hotvirt-directory
    """
    labels = default_labels(defaults, is_made=not no_create)
    with Line() as line:
        line.say(f"waiting until {kind} {name} is ready for the upload")
        if not no_create:
            said = {BIND_NOW: ""} if force_bind else {}
            claim = claim_spec(image_path, size, storage_class, access_mode, volume_mode)
            _create(api, kind, name, claim, {"annotations": said, "labels": labels})
        _ready(api, kind, name, timeout=wait_secs, force_bind=force_bind)
        config = (_config(api).get("status")) or {}
        url = uploadproxy_url or config.get("uploadProxyURL") or ""
        if not url:
            raise CliError("the home does not say where its upload proxy is: name it with --uploadproxy-url")
        _send(url, _token(api, name), image_path, line, authority=config.get("uploadProxyCA"), insecure=insecure)
        line.say("uploaded; the home makes a disk of it")
        done = wait_for(api, CLAIMS, name, _is_over, what="filled", timeout=PROCESSING)
        if (said := done["metadata"]["annotations"])[PHASE] != "Succeeded":
            raise CliError(f"the image was not taken: {said.get('cdi.kubevirt.io/storage.condition.running.message')}")
        if datasource:
            _data_source(api, name, labels)
    click.echo(f"Uploading {image_path} completed successfully")


def claim_spec(
    image: Path, size: str | None, storage_class: str | None, access_mode: str | None, volume_mode: str | None
) -> Document:
    """What is the same of a data volume's `storage` and a claim's spec."""
    try:
        wanted = size or format_bytes(-(-image.stat().st_size // (1 << 20)) << 20)
        parse_bytes(wanted)
    except QuantityError as error:
        raise click.UsageError(f"--size: {error}") from error
    spec: Document = {"resources": {"requests": {"storage": wanted}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    if access_mode:
        spec["accessModes"] = [access_mode]
    if volume_mode:
        spec["volumeMode"] = volume_mode.capitalize()
    return spec


def default_labels(given: dict[str, str | None], *, is_made: bool) -> dict[str, str]:
    """By which machines infer their instancetype and preference from a disk."""
    for what in ("instancetype", "preference"):
        if given[f"default_{what}_kind"] and not given[f"default_{what}"]:
            raise click.UsageError(f"--default-{what}-kind is the kind of what --default-{what} names: give that, too")
    found = {f"{LABELS}/{name.replace('_', '-')}": value for name, value in given.items() if value}
    if found and not is_made:
        raise click.UsageError("defaults are labels of what is made: leave out --no-create, or kubectl label it")
    return found


def _create(api: Api, kind: str, name: str, claim: Document, metadata: Document) -> None:
    if kind == "dv":
        document: Document = {
            "apiVersion": DATA_VOLUMES.api_version, "kind": DATA_VOLUMES.kind,
            "metadata": {"name": name, **metadata}, "spec": {"source": {"upload": {}}, "storage": claim},
        }  # fmt: skip
        api.request("POST", DATA_VOLUMES.path(api.namespace), body=document)
        return
    annotations = {**metadata["annotations"], UPLOAD: "", CONTENT: "kubevirt"}
    document = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, **metadata, "annotations": annotations},
        "spec": {"accessModes": ["ReadWriteOnce"], **claim},
    }  # fmt: skip
    api.request("POST", CLAIMS.path(api.namespace), body=document)


def _ready(api: Api, kind: str, name: str, *, timeout: float, force_bind: bool) -> None:
    if kind == "pvc":
        ready = {PHASE: "Running", READY: "true"}
        wait_for(api, CLAIMS, name, lambda claim: ready.items() <= _said(claim).items(), what="ready", timeout=timeout)
        return

    def is_ready(volume: Document) -> bool:
        phase = (volume.get("status") or {}).get("phase")
        if phase in ("WaitForFirstConsumer", "PendingPopulation") and not force_bind:
            raise CliError(f"DataVolume {name} waits for a machine that uses it: start one, or say --force-bind")
        if phase in ("Succeeded", "Failed"):
            raise CliError(f"DataVolume {name} has {phase.lower()} already: choose another name")
        return bool(phase == "UploadReady")

    wait_for(api, DATA_VOLUMES, name, is_ready, what="ready for an upload", timeout=timeout)


def _said(claim: Document) -> dict[str, str]:
    found: dict[str, str] = (claim.get("metadata") or {}).get("annotations") or {}
    return found


def _is_over(claim: Document) -> bool:
    said = _said(claim)
    failed = said.get(READY) == "true" and said.get("cdi.kubevirt.io/storage.condition.running.reason") == "Error"
    return said.get(PHASE) in ("Succeeded", "Failed") or failed


def _config(api: Api) -> Document:
    try:
        return api.get(CDI_CONFIGS, "config")
    except NotFound as error:
        raise CliError("DataVolumes are not offered here: there is no CDIConfig") from error


def _token(api: Api, name: str) -> str:
    body = {
        "apiVersion": "upload.cdi.kubevirt.io/v1beta1", "kind": "UploadTokenRequest", "metadata": {"name": name},
        "spec": {"pvcName": name},
    }  # fmt: skip
    return str(api.request("POST", TOKENS.format(api.namespace), body=body)["status"]["token"])


def _send(url: str, token: str, image: Path, line: Line, *, authority: str | None, insecure: bool) -> None:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cadata=authority)
        if insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=120)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=120)
    size = image.stat().st_size
    try:
        connection.putrequest("POST", f"{parts.path.rstrip('/')}/v1beta1/upload-async")
        for header, value in (
            ("Authorization", f"Bearer {token}"), ("Content-Length", str(size)),
            ("Content-Type", "application/octet-stream"),
        ):  # fmt: skip
            connection.putheader(header, value)
        connection.endheaders()
        with image.open("rb") as opened:
            sent = 0
            while chunk := opened.read(_CHUNK):
                connection.send(chunk)
                sent += len(chunk)
                line.say(f"uploading {image.name}", sent / size)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException, socket.gaierror) as error:
        raise CliError(f"the upload to {url} broke off: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise CliError(f"the upload was refused ({answer.status}): {text}")


def _data_source(api: Api, name: str, labels: dict[str, str]) -> None:
    body = {
        "apiVersion": DATA_SOURCES.api_version, "kind": DATA_SOURCES.kind,
        "metadata": {"name": name, "labels": labels},
        "spec": {"source": {"pvc": {"name": name, "namespace": api.namespace}}},
    }  # fmt: skip
    api.request("POST", DATA_SOURCES.path(api.namespace), body=body)
