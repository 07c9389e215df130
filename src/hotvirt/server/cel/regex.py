"""`find` and `findAll` in time that is linear in the text, whatever the pattern: Python's `re` can take for ever.

A pattern in RE2's notation becomes a small program, and a text is walked once with all threads of it abreast (Pike's
machine), the first choice first as in RE2. Single characters are still matched by `re`. Pure.
"""

import re
from functools import lru_cache
from typing import Any

from hotvirt.server.schema_formats import compile_pattern

LARGEST = 5000  # instructions
_DEEPEST = 100
_MOST_REPEATS = 1000
_ONE = re.compile(r"\\p\{\w+\}|\\x\{[0-9A-Fa-f]+\}|\\x[0-9A-Fa-f]{2}|\\.|.", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]", re.DOTALL)
_COUNT = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")
_GROUP = re.compile(r"\((?:\?P?<\w+>|\?([ims]*)(?:-([imsU]*))?(:|\)))?")
_EDGES = {"\\A": "start", "\\z": "end", "\\b": "edge", "\\B": "inside"}

# match: a set of characters as re.Pattern; split: two ways, the first preferred; jump; at: a place; done
Step = tuple[str, Any, int]


def find(text: str, pattern: str) -> str:
    """The leftmost match; "" without one."""
    found = _search(_program(pattern), text, 0)
    return text[found[0] : found[1]] if found else ""


def size(pattern: str) -> int:
    """How much work a character is, at most."""
    try:
        return len(_program(pattern))
    except ValueError:
        return 1  # the evaluation will say so


def find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    program, at = _program(pattern), 0
    found: list[str] = []
    while at <= len(text) and (most < 0 or len(found) < most):
        span = _search(program, text, at)
        if span is None:
            break
        found.append(text[span[0] : span[1]])
        at = span[1] if span[1] > span[0] else span[1] + 1
    return found


@lru_cache(maxsize=256)
def _program(pattern: str) -> tuple[Step, ...]:
    return tuple(_Compiler(pattern).compile())


class _Compiler:
    """Pattern to program, by recursive descent. ValueError when it is no pattern of RE2's."""

    def __init__(self, pattern: str) -> None:
        self._text, self._at, self._depth = pattern, 0, 0

    def compile(self) -> list[Step]:
        steps = self._choice("")
        if self._at < len(self._text):
            raise self._fault("unexpected )")
        return [*steps, ("done", None, 0)]

    def _fault(self, why: str) -> ValueError:
        return ValueError(f"error parsing regexp: {why}: `{self._text}`")

    def _choice(self, flags: str) -> list[Step]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._fault("expression nests too deeply")
        ways = [self._sequence(flags)]
        while self._text[self._at : self._at + 1] == "|":
            self._at += 1
            ways.append(self._sequence(flags))
        self._depth -= 1
        steps = ways.pop()
        while ways:  # offsets are relative, so that parts can be moved and repeated
            first = ways.pop()
            steps = [("split", 1, len(first) + 2), *first, ("jump", len(steps) + 1, 0), *steps]
        return self._bounded(steps)

    def _bounded(self, steps: list[Step]) -> list[Step]:
        if len(steps) > LARGEST:
            raise self._fault("expression too large")
        return steps

    def _sequence(self, flags: str) -> list[Step]:
        steps: list[Step] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            group = _GROUP.match(self._text, self._at) if self._text.startswith("(?", self._at) else None
            if group and group[3] == ")":  # (?i) for the rest
                flags, self._at = _flags(flags, group), group.end()
                continue
            steps = self._bounded(steps + self._repeated(self._atom(flags)))
        return steps

    def _atom(self, flags: str) -> list[Step]:
        text, at = self._text, self._at
        if text[at] == "(":
            group = _GROUP.match(text, at)
            if group is None or (text.startswith("(?", at) and group.end() == at + 1):
                raise self._fault("invalid or unsupported Perl syntax")
            self._at = group.end()
            steps = self._choice(_flags(flags, group))
            if self._text[self._at : self._at + 1] != ")":
                raise self._fault("missing closing )")
            self._at += 1
            return steps
        if text[at] in "*+?":
            raise self._fault("missing argument to repetition operator")
        if text[at] in "^$":
            self._at += 1
            line = "m" in flags
            return [("at", ("line-" if line else "") + ("start" if text[at] == "^" else "end"), 0)]
        match = (_CLASS if text[at] == "[" else _ONE).match(text, at)
        if match is None or match[0] == "\\":
            raise self._fault("missing closing ]" if text[at] == "[" else "trailing backslash")
        self._at = match.end()
        if match[0] in _EDGES:
            return [("at", _EDGES[match[0]], 0)]
        return [("match", self._character(match[0], flags), 0)]

    def _character(self, piece: str, flags: str) -> re.Pattern[str]:
        if piece == ".":
            return re.compile(r"[\s\S]" if "s" in flags else r"[^\n]")
        if piece.startswith("\\x{"):
            piece = re.escape(chr(int(piece[3:-1], 16)))
        elif len(piece) == 1 and piece in "]}{-":
            piece = "\\" + piece
        try:
            found = compile_pattern(piece)
        except ValueError as error:
            raise self._fault(str(error)) from None
        return re.compile(found.pattern, found.flags | re.IGNORECASE) if "i" in flags else found

    def _repeated(self, steps: list[Step]) -> list[Step]:
        while self._at < len(self._text):
            sign = self._text[self._at]
            count = _COUNT.match(self._text, self._at) if sign == "{" else None
            if sign not in "*+?" and count is None:
                return steps
            least, most = (0, None) if sign == "*" else (1, None) if sign == "+" else (0, 1)
            self._at = count.end() if count else self._at + 1
            if count:
                least = int(count[1])
                most = least if not count[2] else int(count[3]) if count[3] else None
            lazy = self._text[self._at : self._at + 1] == "?"
            self._at += lazy
            steps = self._times(steps, least, most, lazy=lazy)
        return steps

    def _times(self, steps: list[Step], least: int, most: int | None, *, lazy: bool) -> list[Step]:
        if max(least, most or 0) > _MOST_REPEATS or (most is not None and most < least):
            raise self._fault("invalid repeat count")
        if len(steps) * max(least, most or 0) > LARGEST:
            raise self._fault("expression too large")
        size = len(steps)
        if most is None:
            loop = [("split", *_ways(1, size + 2, lazy=lazy)), *steps, ("jump", -size - 1, 0)]
            return self._bounded(steps * least + loop)
        optional: list[Step] = []
        for _ in range(most - least):
            optional = [("split", *_ways(1, size + len(optional) + 1, lazy=lazy)), *steps, *optional]
        return self._bounded(steps * least + optional)


def _ways(stay: int, leave: int, *, lazy: bool) -> tuple[int, int]:
    return (leave, stay) if lazy else (stay, leave)


def _flags(flags: str, group: re.Match[str]) -> str:
    return "".join(set(flags + (group[1] or "")) - set(group[2] or ""))


def _search(program: tuple[Step, ...], text: str, start: int) -> tuple[int, int] | None:
    """Threads are (instruction: where its match began), in order of preference."""
    threads: dict[int, int] = {}
    best: tuple[int, int] | None = None
    for at in range(start, len(text) + 1):
        if best is None:
            _follow(program, threads, 0, at, text, at, seen=set(threads))
        elif not threads:
            break
        ahead: dict[int, int] = {}
        seen: set[int] = set()
        for place, began in threads.items():
            kind, what, _ = program[place]
            if kind == "done":
                best = began, at
                break  # the rest is preferred less
            if at < len(text) and what.match(text, at, at + 1):
                _follow(program, ahead, place + 1, began, text, at + 1, seen=seen)
        threads = ahead
    return best


def _follow(
    program: tuple[Step, ...], threads: dict[int, int], place: int, began: int, text: str, at: int, *, seen: set[int]
) -> None:
    """Adds the instructions that are reached from `place` without a character."""
    stack = [place]
    while stack:
        here = stack.pop()
        if here in seen:
            continue
        seen.add(here)
        kind, what, other = program[here]
        if kind == "jump":
            stack.append(here + what)
        elif kind == "split":
            stack += (here + other, here + what)
        elif kind == "at":
            if _holds(what, text, at):
                stack.append(here + 1)
        else:
            threads[here] = began


def _holds(place: str, text: str, at: int) -> bool:
    match place:
        case "start":
            return at == 0
        case "end":
            return at == len(text)
        case "line-start":
            return at == 0 or text[at - 1] == "\n"
        case "line-end":
            return at == len(text) or text[at] == "\n"
    edge = _is_word(text, at - 1) is not _is_word(text, at)
    return edge if place == "edge" else not edge


def _is_word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and text[at].isascii() and (text[at].isalnum() or text[at] == "_")
