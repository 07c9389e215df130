"""Compiles and evaluates expressions: the one module that touches the CEL library.

An expression is checked in an environment that knows its variables' types (`types` makes those of a schema), and
evaluated in one for all, where every variable is plain data. The library and its environments are made on first use
(12 MiB, 0.1 s). An `Expression` never changes; evaluating is synchronous and not for several threads at once.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from hotvirt.server.cel import cost, functions, syntax

LONGEST = 16 * 1024
MOST_DOUBLING = 10  # macros that repeat what stands before them, so that a chain of them doubles with each
VARIABLES = (
    "self", "oldSelf", "object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer",
    "authorizer.requestResource",
)  # fmt: skip
MAYBE = "maybe__"  # the list with an optional variable's value, if there is one
_DOUBLING = re.compile(r"\bopt(?:Flat)?Map\b")
_KEY = re.compile(r'NOT_FOUND: Key not found in map : "?(.*?)"?\Z', re.DOTALL)
_CODE = re.compile(r"\A[A-Z_]+: ")
_TAIL = re.compile(r" \[[A-Z_]+\]\Z")
_OVERLOAD = re.compile(r"No matching overloads found : ?(.*)\Z", re.DOTALL)
_LINE = re.compile(r"<input>:(\d+):")
_STRUCT = re.compile(r" not found in struct '[^']*'")
_OBJECT = re.compile(r"\brule\.Object\d+")
_ABSENT = "CEL is not installed here: pip install cel-expr-python protobuf (there is no build for every platform)"


class CompileError(ValueError):
    """The expression can't be used. The text says why."""


class EvaluationError(Exception):
    """No value. `is_costly` when it was not even tried, or was cut off."""

    def __init__(self, text: str, *, is_costly: bool = False) -> None:
        super().__init__(text)
        self.is_costly = is_costly


class Budget:
    """What all the evaluations of one write may cost together. `are_small`: the objects, each for itself."""

    __slots__ = ("are_small", "left")

    def __init__(self, *, are_small: bool = False) -> None:
        self.left, self.are_small = cost.PER_WRITE, are_small


class Expression:
    """`tree` is what it says, `reads` the variables it reads, `gives` the name of its type."""

    __slots__ = ("_bounds", "_flat_cost", "_run", "gives", "reads", "text", "tree")

    def __init__(self, text: str, run: Any, tree: syntax.Node, gives: str) -> None:
        self.text, self._run, self.tree, self.gives = text, run, tree, gives
        self.reads = frozenset(syntax.identifiers(tree))
        self._bounds: dict[cost.Profile, int] = {}
        self._flat_cost = 10 * sum(1 for _ in syntax.walk(tree)) if cost.is_flat(tree) else 0

    def mentions(self, variable: str) -> bool:
        """Whether the text itself does, not what is put around it for an optional variable."""
        body = self.tree.parts[4] if MAYBE in self.reads else self.tree
        return any((node.kind, node.name) == ("ident", variable) for node in syntax.walk(body))

    def evaluate(self, values: "Values", budget: Budget) -> Any:
        self._afford(values, budget)
        try:
            found = self._run.eval(values.activation)
        except RuntimeError as error:
            is_costly = "budget exceeded" in str(error)
            raise EvaluationError(_OVER if is_costly else _plain(str(error)), is_costly=is_costly) from None
        try:
            if found.type().name() == "ERROR":
                raise EvaluationError(_plain(str(found.value())))
            return found.plain_value()
        except (TypeError, SystemError):  # the library has no form of it for Python
            raise EvaluationError("the result holds an optional: take its value() or orValue()") from None

    def _afford(self, values: "Values", budget: Budget) -> None:
        is_cheap = self._flat_cost and values.are_small
        bound = self._flat_cost if is_cheap else self._bounds.get(values.profile, -1)
        if bound < 0:
            if len(self._bounds) >= 64:
                self._bounds.clear()
            bound = self._bounds[values.profile] = cost.bound(self.tree, values.profile)
        if bound > cost.PER_EVALUATION or bound > budget.left:
            raise EvaluationError(_OVER, is_costly=True)
        budget.left -= bound


_LITERALS = {"matches": 1, "find": 1, "findAll": 1, "duration": 0, "timestamp": 0}  # which operand
_OVER = "operation cancelled: actual cost limit exceeded"


class Values:
    """Variables with their values, ready for several expressions. `are_small` when somebody knows that they are."""

    __slots__ = ("_profile", "_values", "activation", "are_small")

    def __init__(self, values: Mapping[str, Any], *, are_small: bool = False) -> None:
        self._profile: cost.Profile | None = None
        self._values, self.are_small = values, are_small
        self.activation = _runtime().Activation(dict(values))

    @property
    def profile(self) -> cost.Profile:
        if self._profile is None:
            self._profile = cost.measure(self._values.values())
        return self._profile


class Checker:
    """Checks expressions against the types of some variables. `optional` names one that may be absent, and is then an
    optional of what `MAYBE` holds."""

    def __init__(self, variables: Mapping[str, Any], pool: Any = None) -> None:
        cel, (more, declared) = library(), _declared()
        self._environment = cel.NewEnv(pool, more, variables=dict(variables), functions=declared)

    def compile(self, text: str, *, gives: tuple[str, ...] = (), optional: str = "") -> Expression:
        """CompileError when it is wrong or gives none of those types; a dynamic type may turn out right. Any type will
        do when none is named."""
        if len(text) > LONGEST:
            raise CompileError(f"too long: at most {LONGEST} characters")
        if len(_DOUBLING.findall(text)) > MOST_DOUBLING:
            raise CompileError(
                f"too costly to compile: at most {MOST_DOUBLING} optMap and optFlatMap in one expression"
            )
        whole = f"cel.bind({optional}, {MAYBE}[?0], (\n{text}\n))" if optional else text
        try:
            if optional:  # it must be an expression by itself, and not close the bracket that is put around it
                self._environment.compile(text, disable_check=True)
            checked = self._environment.compile(whole)
            serialized = checked.serialize()
            if any(name in text for name in functions.GIVES_OPTIONAL):
                serialized = syntax.optional_results(serialized, functions.GIVES_OPTIONAL)
            tree, run = syntax.parse(serialized), _runtime().deserialize(serialized)
        except RuntimeError as error:
            told = _told(str(error), lines_before=1 if optional else 0)
            raise CompileError(f"compilation failed: {told}") from None
        except ValueError as error:
            raise CompileError(str(error)) from None
        _check_literals(tree)
        kind = str(checked.return_type().name())
        if gives and kind not in (*gives, "DYN"):
            raise CompileError(f"must evaluate to {' or '.join(map(str.lower, gives))}")
        if kind.startswith("optional_type"):
            raise CompileError("must evaluate to a value: take the optional's value() or orValue()")
        return Expression(text, run, tree, kind)


def _check_literals(tree: syntax.Node) -> None:
    """Patterns, durations and times that are written out are tried when they are compiled."""
    for node in syntax.walk(tree):
        place = _LITERALS.get(node.name, -1) if node.kind == "call" else -1
        if not 0 <= place < len(node.parts) or not node.parts[place].is_text:
            continue
        text = node.parts[place].value
        try:
            _trial(node.name).evaluate(Values({"self": text}), Budget())
        except EvaluationError as error:
            raise CompileError(f"compilation failed: ERROR: invalid {node.name} argument {text!r}: {error}") from None


@cache
def _trial(function: str) -> Expression:
    checker, is_pattern = Checker({"self": library().Type.DYN}), _LITERALS[function] == 1
    return checker.compile(f"''.{function}(self)" if is_pattern else f"{function}(self)")


@cache
def library() -> Any:
    """The library's module. CompileError without it."""
    try:
        from cel_expr_python import cel
    except ImportError:
        raise CompileError(_ABSENT) from None
    return cel


@cache
def _declared() -> tuple[Any, list[Any]]:
    cel = library()
    more = cel.NewEnvConfigFromYaml(functions.EXTENSIONS + functions.WITHOUT + functions.CONFIGURATION)
    return more, functions.declare(cel, for_checking=True)


@cache
def _runtime() -> Any:
    cel = library()
    return cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(functions.EXTENSIONS + functions.WITHOUT_STRING),
        variables=dict.fromkeys((*VARIABLES, MAYBE), cel.Type.DYN),
        functions=functions.declare(cel, for_checking=False),
    )


def _told(text: str, *, lines_before: int) -> str:
    """A compiler's complaint, without what only its own types are called."""
    text = _LINE.sub(lambda match: f"<input>:{max(1, int(match[1]) - lines_before)}:", text)
    return _STRUCT.sub("", _OBJECT.sub("object", _TAIL.sub("", _CODE.sub("", text)))).replace(" (in container '')", "")


def _plain(text: str) -> str:
    """The library's words as Kubernetes' are: `no such key: a`."""
    text = _TAIL.sub("", text)
    if match := _KEY.match(text):
        return f"no such key: {match[1]}"
    text = _CODE.sub("", text)
    if match := _OVERLOAD.match(text):
        return f"no such overload: {match[1]}"
    return "division by zero" if text == "divide by zero" else text
