"""The reference page says what the commands say."""

from hotvirt.cli import reference


def test_the_page_is_current():
    assert reference.PAGE.read_text() == reference.render(), "run: python -m hotvirt.cli.reference"
