"""String formats and patterns of OpenAPI schemas, as Kubernetes understands them.

A pattern is written for Go's RE2; `compile_pattern` gives the same meaning to Python's `re`. An unknown format holds
for every text, as in Kubernetes. Pure functions; each is a predicate over one text.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache

from hotvirt.server import quantities

_DATE_TIME = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])[Tt ](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
    r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):?[0-5]\d)\Z",
    re.ASCII,
)
_DURATION = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|[smhdw]))+\Z|0\Z", re.ASCII)
_HOST = re.compile(r"(?=.{1,253}\.?\Z)[A-Za-z0-9](?:[-A-Za-z0-9]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*\.?\Z")  # fmt: skip  # noqa: E501
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}\Z")
_UUID = re.compile(r"[0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?([0-9A-Fa-f])[0-9A-Fa-f]{3}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{12}\Z")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\Z")
_URI = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:\S+|/\S*)\Z")


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.match(text) is not None


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def holds(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return holds


def _uuid(version: str) -> Callable[[str], bool]:
    return lambda text: (found := _UUID.match(text)) is not None and found.group(1) == version


def _cidr(text: str) -> None:
    if "/" not in text:
        raise ValueError(text)
    ipaddress.ip_network(text, strict=False)


FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _matches(_DATE_TIME),
    "datetime": _matches(_DATE_TIME),
    "date": _parses(date.fromisoformat),
    "duration": _matches(_DURATION),
    "hostname": _matches(_HOST),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(_cidr),
    "mac": _matches(_MAC),
    "uuid": _matches(_UUID),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4"),
    "uuid5": _uuid("5"),
    "email": _matches(_MAIL),
    "uri": _matches(_URI),
    "quantity": _parses(quantities.parse),
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
}

_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7F", "blank": r"\t ", "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t\n\v\f\r ",
    "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_PIECES = re.compile(r"\\Q.*?(?:\\E|\Z)|\\z|\\.|\[:(\^?)(\w+):\]|\[\^?\]?|\]|\$|.", re.DOTALL)


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The RE2 pattern for Python. ValueError says what can't be translated."""
    out: list[str] = []
    inside = False
    for match in _PIECES.finditer(pattern):
        piece = match.group(0)
        if piece.startswith("\\Q"):
            out.append(re.escape(piece[2:].removesuffix("\\E")))
        elif piece == "\\z" or (piece == "$" and not inside):
            out.append(r"\Z")  # Python's $ would also hold before a last newline
        elif match.group(2) is not None:
            if not inside or match.group(1) or match.group(2) not in _POSIX:
                raise ValueError(f"{piece} is not supported")
            out.append(_POSIX[match.group(2)])
        elif piece[0] == "[" and not inside:
            inside = True
            out.append(piece.replace("]", "\\]"))
        elif piece[0] == "[":
            out.append("\\[" + piece[1:].rstrip("]"))
            if piece.endswith("]"):
                inside = False
                out.append("]")
        else:
            inside = inside and piece != "]"
            out.append(piece)
    try:
        return re.compile("".join(out), re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error
