"""The current context of a person's kubeconfig: ours while the home runs, theirs again afterwards."""

import pytest
import yaml

from hotvirt.home import contexts
from hotvirt.home.leftovers import shown
from hotvirt.home.paths import Paths
from hotvirt.kube.kubeconfig import Access

ACCESS = Access(server="https://127.0.0.1:7443")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    (tmp_path / "state").mkdir()
    return Paths(tmp_path / "state", tmp_path / "run", is_default=True)


@pytest.fixture
def theirs(tmp_path):
    """Reads or writes which context is current."""
    file = tmp_path / "config"

    def current(name=None):
        if name is not None:
            known = [{"name": each, "context": {}} for each in ("work", "play")]
            config = yaml.safe_load(file.read_text()) if file.exists() else {"contexts": known}
            file.write_text(yaml.safe_dump({**config, "current-context": name}))
        return yaml.safe_load(file.read_text())["current-context"]

    return current


def test_what_was_current_before_is_current_afterwards(place, theirs):
    theirs("work")
    for _ in range(2):  # the home of a person who restarts it
        contexts.write_kubeconfigs(place, ACCESS)
    assert theirs() == "hotvirt"
    assert contexts.leave_context(place) == "kubectl's context is work again"
    assert theirs() == "work"


def test_without_one_before_there_is_none_afterwards(place, theirs):
    contexts.write_kubeconfigs(place, ACCESS)
    assert "no current context" in contexts.leave_context(place)
    assert theirs() == ""


def test_a_choice_made_meanwhile_is_left_alone(place, theirs):
    theirs("work")
    contexts.write_kubeconfigs(place, ACCESS)
    theirs("play")
    assert contexts.leave_context(place) == ""
    assert theirs() == "play"


def test_a_guest_is_named_as_people_name_it():
    assert [shown(each) for each in ("default_web", "prod_web", "odd", "")] == ["vm/web", "vm/web/prod", "odd", ""]
