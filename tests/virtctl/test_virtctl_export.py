"""vmexport: what is downloaded is what the claim holds."""

import gzip
import os

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]
SIZE = 8 << 20


@pytest.fixture(scope="module")
def data(home):
    """What the claim `exported` holds."""
    home.apply_claim("exported", "8Mi")
    home.kubectl("annotate", "pvc", "exported", "cdi.kubevirt.io/storage.bind.immediate.requested=")
    home.wait("pvc/exported", "jsonpath={.status.phase}=Bound")
    volume = home.kubectl_json("get", "pvc", "exported")["spec"]["volumeName"]
    content = os.urandom(1 << 20).ljust(SIZE, b"\0")
    (home.directory / "volumes" / volume / "disk.img").write_bytes(content)
    return content


def told(virtctl, *args):
    """What it says of success, on whichever stream."""
    done = virtctl.run(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_an_export_is_made_downloaded_and_deleted(virtctl, home, data):
    said = told(virtctl, "vmexport", "create", "held", "--pvc=exported", "--ttl=30m", "--labels=a=b")
    assert said.startswith("VirtualMachineExport 'default/held' created succes")
    export = home.kubectl_json("get", "vmexport", "held")
    assert export["spec"]["ttlDuration"] in ("30m", "30m0s")
    assert export["metadata"]["labels"] == {"a": "b"}
    virtctl("vmexport", "download", "held", "--output=disk.img", "--format=raw")
    assert (virtctl.directory / "disk.img").read_bytes() == data
    virtctl("vmexport", "download", "held", "--volume=exported", "--output=disk.img.gz")
    assert gzip.decompress((virtctl.directory / "disk.img.gz").read_bytes()) == data
    assert home.kubectl("get", "vmexport", "held", check=False).returncode == 0, "what it did not make stays"
    said = told(virtctl, "vmexport", "delete", "held")
    assert said.startswith("VirtualMachineExport 'default/held' deleted succes")
    assert told(virtctl, "vmexport", "delete", "held") == "VirtualMachineExport 'default/held' does not exist\n"


def test_a_download_makes_its_export_and_clears_it_away(virtctl, home, data):
    virtctl("vmexport", "download", "once", "--pvc=exported", "--output=once.gz")
    assert gzip.decompress((virtctl.directory / "once.gz").read_bytes()) == data
    assert home.kubectl("get", "vmexport", "once", check=False).returncode
    virtctl("vmexport", "download", "kept", "--pvc=exported", "--output=kept.gz", "--keep-vme")
    assert home.kubectl("get", "vmexport", "kept", check=False).returncode == 0
    virtctl.fails("vmexport", "create", "two", "--pvc=exported", "--vm=web")
    virtctl.fails("vmexport", "download", "kept", "--output=x", "--keep-vme", "--delete-vme")
