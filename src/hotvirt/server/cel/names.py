"""How property names are written in expressions, where not every name is an identifier. Pure."""

import re

_WORDS = frozenset(
    ("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
     "let", "loop", "package", "namespace", "return", "var", "void", "while")
)  # fmt: skip
_SIGNS = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_SIGN = re.compile(r"__|[./-]")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def escape(name: str) -> str | None:
    """`a-b` as `a__dash__b`, a reserved word between underscores. None when no expression can name the property."""
    if name in _WORDS:
        return f"__{name}__"
    written = _SIGN.sub(lambda match: _SIGNS[match.group()], name)
    return written if _IDENTIFIER.match(written) else None
