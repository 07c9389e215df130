"""The page of metrics is what the code tells."""

from hotvirt.home import metrics_reference


def test_the_page_is_current():
    assert metrics_reference.PAGE.read_text() == metrics_reference.render(), (
        "run: python -m hotvirt.home.metrics_reference"
    )
