"""image-upload: what is made of virtctl's options. That it fills a disk is tried in tests/storage."""

import pytest

CDI = "/apis/cdi.kubevirt.io/v1beta1/namespaces/default/datavolumes"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
LABELS = "instancetype.kubevirt.io"


@pytest.fixture
def made(run, api, tmp_path):
    """Calls `image-upload KIND web` with an image of 3 MiB; what was made, and what was said."""
    (tmp_path / "a.img").write_bytes(b"x" * (3 << 20))
    full = {"metadata": {"name": "web", "resourceVersion": "1"}, "status": {"phase": "Succeeded"}}
    api.answers["POST", CDI] = api.answers["POST", CLAIMS] = {}
    api.answers["GET", f"{CDI}/web"] = api.answers["GET", f"{CLAIMS}/web"] = full

    def call(kind, *words):
        code, out, err = run("image-upload", kind, "web", f"--image-path={tmp_path}/a.img", "--wait-secs=0", *words)
        assert code != 0, "nobody takes the upload"
        return next((body for method, _, body in api.asked if method == "POST"), None), out + err

    return call


@pytest.mark.parametrize(
    ("words", "storage"),
    [
        ([], {"resources": {"requests": {"storage": "3Mi"}}}),
        (["--size=1Gi", "--volume-mode=block"], {"resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Block"}),
        (["--pvc-size=1Gi", "--block-volume=true"],
         {"resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Block"}),
        (["--block-volume=false"], {"resources": {"requests": {"storage": "3Mi"}}}),
    ],
)  # fmt: skip
def test_the_disk(made, words, storage):
    assert made("dv", *words)[0]["spec"] == {"source": {"upload": {}}, "storage": storage}


@pytest.mark.parametrize(("flag", "is_bound"), [("--force-bind=true", True), ("--force-bind=false", False)])
def test_flags_may_be_written_with_a_value(made, flag, is_bound):
    said = made("dv", flag)[0]["metadata"]["annotations"]
    assert ("cdi.kubevirt.io/storage.bind.immediate.requested" in said) == is_bound


@pytest.mark.parametrize("kind", ["dv", "pvc"])
def test_machines_infer_from_it(made, kind):
    found, _ = made(kind, "--default-instancetype=small", "--default-preference=fedora",
                    "--default-preference-kind=VirtualMachinePreference")  # fmt: skip
    assert found["metadata"]["labels"] == {
        f"{LABELS}/default-instancetype": "small", f"{LABELS}/default-preference": "fedora",
        f"{LABELS}/default-preference-kind": "VirtualMachinePreference",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--default-preference-kind=x"], "give that, too"),
        (["--default-instancetype=x", "--no-create"], "leave out --no-create"),
        (["--size=lots"], "--size"),
    ],
)
def test_what_does_not_go_together(made, words, says):
    found, said = made("dv", *words)
    assert found is None
    assert says in said
