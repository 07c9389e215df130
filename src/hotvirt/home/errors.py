"""What goes wrong with a home, as one sentence for a person: what it is, and what mends it."""


class HomeError(Exception):
    """Cannot start, stop or find a home. The text is one line that names the thing and the mend."""
