"""The reference page says what the commands say."""

from hotvirt.cli import reference
from hotvirt.cli.main import SECTIONS


def test_the_page_is_current():
    assert reference.PAGE.read_text() == reference.render(), "run: python -m hotvirt.cli.reference"


def test_commands_that_move_data_stand_together_and_a_thing_has_one_name():
    assert list(SECTIONS["Data in and out"]) == ["image-upload", "vmexport", "export", "memory-dump"]
    assert "instance type" not in reference.render(), "KubeVirt's word is instancetype"
