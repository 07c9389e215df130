"""CEL about a write: `object`, `oldObject`, `request`, `authorizer`, and for policies `params`, `namespaceObject` and
`variables`.

Objects are as they are sent, so their fields have no types; a request and a namespace have. Expressions are compiled on
first use, and once. Pure but for that.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from hotvirt.server.cel.authority import Authorize
    from hotvirt.server.cel.engine import Budget, Expression

Document = dict[str, Any]
_TEXT: Document = {"type": "string"}
_TEXTS: Document = {"type": "object", "additionalProperties": _TEXT}
_LIST: Document = {"type": "array", "items": _TEXT}
_ANY: Document = {"x-kubernetes-int-or-string": True}
_GIVEN = {"BOOL": "boolean", "INT": "integer", "STRING": "string", "DOUBLE": "number"}


def _fields(**properties: Document) -> Document:
    return {"type": "object", "properties": properties}


_KIND = _fields(group=_TEXT, version=_TEXT, kind=_TEXT)
_RESOURCE = _fields(group=_TEXT, version=_TEXT, resource=_TEXT)
_USER = _fields(username=_TEXT, uid=_TEXT, groups=_LIST, extra={"type": "object", "additionalProperties": _LIST})
REQUEST = _fields(
    kind=_KIND, resource=_RESOURCE, subResource=_TEXT, requestKind=_KIND, requestResource=_RESOURCE,
    requestSubResource=_TEXT, name=_TEXT, namespace=_TEXT, operation=_TEXT, userInfo=_USER,
    dryRun={"type": "boolean"}, options=_ANY,
)  # fmt: skip
_MOMENT = {"type": "string", "format": "date-time"}
NAMESPACE = _fields(
    metadata=_fields(
        name=_TEXT, generateName=_TEXT, namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS, uid=_TEXT,
        creationTimestamp=_MOMENT, deletionTimestamp=_MOMENT, deletionGracePeriodSeconds={"type": "integer"},
        generation={"type": "integer"}, resourceVersion=_TEXT, finalizers=_LIST,
    ),
    spec=_fields(finalizers=_LIST),
    status=_fields(phase=_TEXT),
)  # fmt: skip


class Scope(Struct, frozen=True):
    """What expressions may read besides object, oldObject and request; `variables` are names with their types."""

    has_params: bool = False
    has_namespace: bool = False
    variables: tuple[tuple[str, str], ...] = ()


WEBHOOK = Scope()


@lru_cache(maxsize=256)
def _checker(scope: Scope) -> Any:
    from hotvirt.server.cel.engine import Checker, library
    from hotvirt.server.cel.functions import ABSTRACT
    from hotvirt.server.cel.types import SchemaTypes

    types, dyn = SchemaTypes(str), library().Type.DYN  # no name here needs escaping
    known = {"object": dyn, "oldObject": dyn, "request": types.of(REQUEST)}
    for name, kind in (("authorizer", "Authorizer"), ("authorizer.requestResource", "ResourceCheck")):
        known[name] = library().Type.AbstractType(ABSTRACT[kind])
    if scope.has_params:
        known["params"] = dyn
    if scope.has_namespace:
        known["namespaceObject"] = types.of(NAMESPACE)
        named = {name: {"type": _GIVEN[kind]} if kind in _GIVEN else _ANY for name, kind in scope.variables}
        known["variables"] = types.of(_fields(**named))
    return Checker(known, types.pool)


@lru_cache(maxsize=4096)
def compile_text(text: str, scope: Scope, gives: tuple[str, ...] = ("BOOL",)) -> "Expression":
    """CompileError says what is wrong with it."""
    return _checker(scope).compile(text, gives=gives)  # type: ignore[no-any-return]


@cache
def _namespace_conversion() -> Any:
    from hotvirt.server.cel.values import compile_conversion

    return compile_conversion(NAMESPACE)


class Question:
    """One write, about which expressions are asked. Variables are found when something first reads them."""

    def __init__(
        self, *, new: Document | None, old: Document | None, request: Document, namespace: Document | None = None,
        params: Document | None = None, variables: Mapping[str, "Expression"] | None = None,
        authorize: "Authorize | None" = None,
    ) -> None:  # fmt: skip
        self._authorize = authorize
        space = _namespace_conversion()(_seen(namespace)) if namespace is not None else None
        self._known: Document = {
            "object": new, "oldObject": old, "request": request, "params": params, "namespaceObject": space,
            **_authorizers(request),
        }  # fmt: skip
        self._variables = variables or {}
        self._found: Document = {}
        self._failed: dict[str, str] = {}
        self._values: Any = None

    def ask(self, expression: "Expression", budget: "Budget") -> Any:
        """The value. EvaluationError when there is none."""
        from hotvirt.server.cel.authority import asked_of
        from hotvirt.server.cel.engine import EvaluationError, Values
        from hotvirt.server.cel.syntax import fields_of

        if "variables" in expression.reads:
            for name in fields_of(expression.tree, "variables"):
                self._find(name, budget)
        if self._values is None:
            is_small = not self._found and self._is_small()
            self._values = Values({**self._known, "variables": self._found}, are_small=is_small)
        try:
            with asked_of(self._authorize):
                return expression.evaluate(self._values, budget)
        except EvaluationError as error:
            missing = str(error).removeprefix("no such key: ")
            if missing in self._failed:
                why = self._failed[missing]
                raise EvaluationError(f'composited variable "{missing}" fails to evaluate: {why}') from None
            raise

    def _is_small(self) -> bool:
        from hotvirt.server.cel.cost import SMALL

        return sum(len(msgspec.json.encode(self._known[name])) for name in ("object", "oldObject", "params")) <= SMALL

    def _find(self, name: str, budget: "Budget") -> None:
        from hotvirt.server.cel.engine import EvaluationError
        from hotvirt.server.cel.times import to_cel

        if name in self._found or name in self._failed or name not in self._variables:
            return
        try:
            self._found[name] = to_cel(self.ask(self._variables[name], budget))
        except EvaluationError as error:
            if error.is_costly:
                raise
            self._failed[name] = str(error)
        self._values = None


def _authorizers(request: Document) -> Document:
    """What `authorizer` and `authorizer.requestResource` stand for: whom to ask about, and what of."""
    user, resource = request.get("userInfo") or {}, request.get("resource") or {}
    who: Document = {"": "authorizer", "user": user}
    about_it = {
        "group": resource.get("group") or "", "resource": resource.get("resource") or "",
        "subresource": request.get("subResource") or "", "namespace": request.get("namespace") or "",
        "name": request.get("name") or "",
    }  # fmt: skip
    return {"authorizer": who, "authorizer.requestResource": {**who, **about_it}}


def _seen(namespace: Document) -> Document:
    """The parts of a namespace that expressions may see."""
    found = {}
    for part, shape in NAMESPACE["properties"].items():
        if part in namespace:
            found[part] = {key: value for key, value in namespace[part].items() if key in shape["properties"]}
    return found


def conditions_hold(
    conditions: Sequence[tuple[str, "Expression"]], question: Question, budget: "Budget"
) -> tuple[bool, str]:
    """Whether all matchConditions do, and why that can't be said. One that is false decides, whatever others do."""
    from hotvirt.server.cel.engine import EvaluationError

    faults = []
    for _, expression in conditions:
        try:
            if question.ask(expression, budget) is not True:
                return False, ""
        except EvaluationError as error:
            faults.append(f"expression '{expression.text}' resulted in error: {error}")
    told = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    return not faults, told if faults else ""


def about(request: Document, **more: Any) -> Question:
    """The request of an AdmissionReview, as a question."""
    shown = {key: value for key, value in request.items() if key not in ("uid", "object", "oldObject")}
    return Question(new=request.get("object"), old=request.get("oldObject"), request=shown, **more)
