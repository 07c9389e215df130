"""Reading contexts as kubectl does, and writing one without harming the others."""

import base64
import stat

import pytest
import yaml

from hotvirt.kube import kubeconfig
from hotvirt.kube.kubeconfig import Access, KubeconfigError

OURS = Access(server="https://127.0.0.1:6443", ca="CA\n", certificate="CERT\n", key="KEY\n")
THEIRS = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {"colors": True},
    "clusters": [{"name": "work", "cluster": {"server": "https://work.example/", "certificate-authority": "ca.pem"}}],
    "users": [{"name": "me", "user": {"token": "secret"}}, {"name": "sso", "user": {"exec": {"command": "login"}}}],
    "contexts": [
        {"name": "work", "context": {"cluster": "work", "user": "me", "namespace": "team"}},
        {"name": "sso", "context": {"cluster": "work", "user": "sso"}},
    ],
    "current-context": "work",
}


@pytest.fixture
def theirs(tmp_path):
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(THEIRS))
    (tmp_path / "ca.pem").write_text("THEIR CA")
    return path


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "new" / "config"
    kubeconfig.write_context(path, "hotvirt", OURS)
    read = kubeconfig.load(path)
    assert (read.server, read.ca, read.certificate, read.key) == (OURS.server, OURS.ca, OURS.certificate, OURS.key)
    assert (read.namespace, read.context, read.token) == ("default", "hotvirt", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [f.name for f in path.parent.iterdir()] == ["config"]


def test_relative_files_and_namespaces_are_read(theirs):
    read = kubeconfig.load(theirs)
    assert (read.server, read.ca, read.token, read.namespace) == ("https://work.example", "THEIR CA", "secret", "team")


def test_writing_leaves_everything_else_and_can_leave_the_current_context(theirs):
    kubeconfig.write_context(theirs, "hotvirt", OURS, make_current=False)
    config = yaml.safe_load(theirs.read_text())
    assert config["current-context"] == "work"
    assert config["preferences"] == {"colors": True}
    assert config["users"][:2] == THEIRS["users"]
    kubeconfig.write_context(theirs, "hotvirt", Access(server="https://127.0.0.1:7000"))
    config = yaml.safe_load(theirs.read_text())
    assert config["current-context"] == "hotvirt"
    assert [c["name"] for c in config["clusters"]] == ["work", "hotvirt"]
    assert config["clusters"][1]["cluster"] == {"server": "https://127.0.0.1:7000"}
    kubeconfig.remove_context(theirs, "hotvirt")
    assert yaml.safe_load(theirs.read_text()) == {**THEIRS, "current-context": ""}


def test_a_symlink_stays_one(theirs, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(theirs)
    kubeconfig.write_context(link, "hotvirt", OURS)
    assert link.is_symlink()
    assert "hotvirt" in theirs.read_text()


def test_the_first_file_that_knows_a_name_counts(theirs, tmp_path):
    other = tmp_path / "other"
    kubeconfig.write_context(other, "work", OURS)
    kubeconfig.write_context(other, "hotvirt", OURS)
    assert kubeconfig.load([theirs, other]).server == "https://work.example"
    assert kubeconfig.load([tmp_path / "absent", theirs, other], "hotvirt").key == "KEY\n"
    assert kubeconfig.search_path({"KUBECONFIG": f"{theirs}:{other}:"}) == [theirs, other]
    assert kubeconfig.search_path({}, tmp_path) == [tmp_path / ".kube" / "config"]


@pytest.mark.parametrize(
    ("change", "context", "says"),
    [
        ({"current-context": ""}, None, "use-context"),
        ({}, "nope", "no context 'nope'; it has: sso, work"),
        ({"clusters": []}, None, "no cluster 'work'; it has: none"),
        ({"clusters": [{"name": "work", "cluster": {}}]}, None, "no server"),
        ({}, "sso", "helper program"),
        ({"clusters": {"work": 1}}, None, "not a kubeconfig"),
        ({"users": [{"name": "me", "user": {"client-key-data": "%%"}}]}, None, "client-key-data is not base64"),
        ({"users": [{"name": "me", "user": {"client-key": "gone.pem"}}]}, None, "gone.pem"),
    ],
)
def test_what_is_wrong_is_said_with_its_mend(theirs, change, context, says):
    theirs.write_text(yaml.safe_dump({**THEIRS, **change}))
    with pytest.raises(KubeconfigError) as caught:
        kubeconfig.load(theirs, context)
    assert says in str(caught.value)


def test_a_missing_or_broken_file_is_said(tmp_path):
    with pytest.raises(KubeconfigError, match="does not exist"):
        kubeconfig.load(tmp_path / "config")
    (tmp_path / "config").write_text("{")
    with pytest.raises(KubeconfigError, match="not YAML"):
        kubeconfig.write_context(tmp_path / "config", "hotvirt", OURS)
    assert (tmp_path / "config").read_text() == "{"


def test_two_programs_do_not_write_at_once(theirs):
    lock = theirs.with_name("config.lock")
    lock.touch()
    with pytest.raises(KubeconfigError, match="remove"):
        kubeconfig.write_context(theirs, "hotvirt", OURS)
    assert yaml.safe_load(theirs.read_text()) == THEIRS


def test_embedded_certificates_count_before_files(theirs):
    data = base64.b64encode(b"INLINE").decode()
    cluster = {"server": "https://x", "certificate-authority": "ca.pem", "certificate-authority-data": data}
    theirs.write_text(yaml.safe_dump({**THEIRS, "clusters": [{"name": "work", "cluster": cluster}]}))
    assert kubeconfig.load(theirs).ca == "INLINE"
