"""What a home finds in its volumes when it starts: leftovers go, disks stay."""

from datetime import UTC, datetime

from hotvirt.images import bases
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import CLAIMS, VOLUMES
from hotvirt.node.imports import Imports
from hotvirt.node.places import Places


def imports(tmp_path):
    places = Places(tmp_path / "pods", tmp_path / "images", tmp_path / "volumes")
    informers = SharedInformers(None)
    recorder = Recorder(None, "test", clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    return Imports(None, informers, places=places, recorder=recorder, user=None), informers, places.volumes


def directory(volumes, name, *files):
    for file in files:
        path = volumes / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_leftovers_go_and_disks_stay(tmp_path):
    made, informers, volumes = imports(tmp_path)
    directory(volumes, "pvc-gone", "work/download", "work/download.json")
    directory(volumes, "pvc-retained", "disk.img")
    directory(volumes, "pvc-filling", "work/download")
    directory(volumes, "pvc-bound", "disk.img", ".copy-disk.img.1234", "work/download")
    directory(volumes, "by-hand", "work/download")
    version = {"resourceVersion": "1"}
    for resource, obj in (
        (CLAIMS, {"metadata": {"name": "c", "namespace": "default", "uid": "filling", **version}}),
        (VOLUMES, {"metadata": {"name": "pvc-bound", **version}}),
    ):
        informers.of(resource)._store(obj, relisted=True)
    made._sweep()
    left = {str(path.relative_to(volumes)) for path in volumes.rglob("*") if path.is_file()}
    assert left == {"pvc-retained/disk.img", "pvc-filling/work/download", "pvc-bound/disk.img", "by-hand/work/download"}


def test_a_directory_that_cannot_be_read_keeps_no_home_from_starting(tmp_path, monkeypatch):
    made, _, volumes = imports(tmp_path)
    directory(volumes, "pvc-bad", "disk.img")
    directory(volumes, "pvc-good", "disk.img", "work/download")
    mend = bases.mend

    def broken(where):
        if where.name == "pvc-bad":
            raise OSError(5, "Input/output error", str(where))
        mend(where)

    monkeypatch.setattr(bases, "mend", broken)
    made._sweep()
    assert not (volumes / "pvc-good" / "work").exists()
