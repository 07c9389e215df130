"""What data volumes may say, and the claims they become."""

import pytest

from hotvirt.api import datavolumes

PVC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
STORAGE = {"resources": {"requests": {"storage": "1Gi"}}}
BLANK = {"blank": {}}
COPY = {"pvc": {"namespace": "images", "name": "golden"}}


def http(**said):
    return {"http": {"url": "https://example.org/x", **said}}


GOOD = {
    "blank": {"source": BLANK, "pvc": PVC},
    "storage": {"source": http(), "storage": STORAGE},
    "a checksum": {"source": http(checksum=f"sha256:{'a' * 64}"), "storage": STORAGE},
    "a copy as large as its source": {"source": COPY, "storage": {}},
    "a data source": {"sourceRef": {"kind": "DataSource", "name": "x"}, "storage": {}},
    "a registry": {"source": {"registry": {"url": "docker://quay.io/x/y:1"}}, "storage": STORAGE},
}


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD)
def test_good(spec):
    assert datavolumes.faults(spec) == []


def test_a_private_registry_has_an_authority_and_a_secret():
    registry = {"url": "docker://r.example/x:1", "secretRef": "login", "certConfigMap": "authority"}
    assert datavolumes.faults({"source": {"registry": registry}, "storage": STORAGE}) == []


FAULTS = {
    "neither claim": ({"source": BLANK}, ["spec"]),
    "both claims": ({"source": BLANK, "pvc": PVC, "storage": STORAGE}, ["spec"]),
    "no source": ({"storage": STORAGE}, ["spec"]),
    "an empty source": ({"source": {}, "sourceRef": {"kind": "DataSource"}, "storage": STORAGE},
                        ["spec.sourceRef.name"]),
    "two sources": ({"source": {**BLANK, **COPY}, "storage": STORAGE}, ["spec.source"]),
    "a source of elsewhere": ({"source": {"s3": {"url": "x"}}, "storage": STORAGE}, ["spec.source.s3"]),
    "another scheme": ({"source": {"http": {"url": "file:///etc/passwd"}}, "storage": STORAGE},
                       ["spec.source.http.url"]),
    "half a checksum": ({"source": http(checksum="sha256:ab"), "storage": STORAGE}, ["spec.source.http.checksum"]),
    "no checksum's kind": ({"source": http(checksum="crc:ab"), "storage": STORAGE}, ["spec.source.http.checksum"]),
    "an image stream": ({"source": {"registry": {"imageStream": "x"}}, "storage": STORAGE},
                        ["spec.source.registry.imageStream"]),
    "no registry": ({"source": {"registry": {"url": "quay.io/x"}}, "storage": STORAGE}, ["spec.source.registry.url"]),
    "half a claim's name": ({"source": {"pvc": {"name": "x"}}, "storage": STORAGE}, ["spec.source.pvc.namespace"]),
    "another reference": ({"sourceRef": {"kind": "Pod", "name": "x"}, "storage": {}}, ["spec.sourceRef.kind"]),
    "no size": ({"source": http(), "storage": {}}, ["spec.storage.resources.requests.storage"]),
    "no size of a claim": ({"source": COPY, "pvc": {"accessModes": ["ReadWriteOnce"]}},
                           ["spec.pvc.resources.requests.storage"]),
    "nothing": ({"source": BLANK, "storage": {"resources": {"requests": {"storage": "0"}}}},
                ["spec.storage.resources.requests.storage"]),
    "no quantity": ({"source": BLANK, "storage": {"resources": {"requests": {"storage": "big"}}}},
                    ["spec.storage.resources.requests.storage"]),
    "no access modes": ({"source": BLANK, "pvc": STORAGE}, ["spec.pvc.accessModes"]),
    "an archive": ({"source": BLANK, "storage": STORAGE, "contentType": "archive"}, ["spec.contentType"]),
    "a warm import": ({"source": BLANK, "storage": STORAGE, "checkpoints": [{}]}, ["spec.checkpoints"]),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "fields"), FAULTS.values(), ids=FAULTS)
def test_faults(spec, fields):
    assert [fault.field for fault in datavolumes.faults(spec)] == fields


def test_namespaces_that_are_taken_from():
    assert datavolumes.foreign({"source": COPY}, "mine") == ["images"]
    assert datavolumes.foreign({"source": COPY}, "images") == []
    assert datavolumes.foreign({"sourceRef": {"name": "x", "namespace": "images"}}, "mine") == ["images"]
    assert datavolumes.foreign({"source": {"snapshot": {"name": "x", "namespace": "other"}}}, "mine") == ["other"]


def volume(**spec):
    return {"metadata": {"name": "root", "namespace": "default", "uid": "u"}, "spec": spec}


def test_a_claim_is_owned_and_filled_in():
    profile = {"claimPropertySets": [{"accessModes": ["ReadWriteMany"], "volumeMode": "Block"},
                                     {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}]}  # fmt: skip
    made = datavolumes.claim(volume(source=COPY, storage={}), size="5Gi", profile=profile)
    assert made["spec"] == {
        "accessModes": ["ReadWriteMany"], "volumeMode": "Block", "resources": {"requests": {"storage": "5Gi"}}
    }  # fmt: skip
    assert datavolumes.owner(made) == "root"
    assert datavolumes.is_populated(made)
    given = datavolumes.claim(volume(source=BLANK, storage={**STORAGE, "volumeMode": "Filesystem"}), profile=profile)
    assert (given["spec"]["accessModes"], given["spec"]["volumeMode"]) == (["ReadWriteOnce"], "Filesystem")
    as_given = datavolumes.claim(volume(source={"upload": {}}, pvc=PVC))
    assert as_given["spec"] == PVC
    assert datavolumes.UPLOAD in as_given["metadata"]["annotations"]


def test_who_waits_for_a_consumer():
    waits, at_once = {"volumeBindingMode": "WaitForFirstConsumer"}, {"volumeBindingMode": "Immediate"}
    claim = {"metadata": {}, "spec": {}}
    assert datavolumes.waits_for_consumer(claim, waits)
    assert not datavolumes.waits_for_consumer(claim, at_once)
    assert not datavolumes.waits_for_consumer(claim, None)
    for said in (datavolumes.BIND_NOW, datavolumes.SELECTED_NODE):
        assert not datavolumes.waits_for_consumer({"metadata": {"annotations": {said: ""}}}, waits)


def test_a_data_source_names_only_what_is_beside_it():
    """Else a DataSource of one's own would lead to anybody's claim."""
    assert datavolumes.stands_for({"pvc": {"name": "x"}}, "mine") == ({"pvc": {"name": "x", "namespace": "mine"}}, "")
    for kind in ("pvc", "snapshot", "dataSource"):
        found, fault = datavolumes.stands_for({kind: {"name": "x", "namespace": "images"}}, "mine")
        assert found is None
        assert "put the DataSource into images" in fault
    assert datavolumes.stands_for({}, "mine")[0] is None
