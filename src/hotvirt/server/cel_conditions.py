"""matchConditions of webhooks and policies: what is wrong with them, and whether they hold for a write.

Pure, but that expressions are compiled on first use, and kept.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hotvirt.kube.errors import Cause
from hotvirt.server import cel_requests
from hotvirt.server.cel_requests import WEBHOOK, Scope, compile_text, conditions_hold
from hotvirt.server.objectmeta import INVALID, REQUIRED
from hotvirt.server.schema_checks import DUPLICATE, TOO_MANY, shown

if TYPE_CHECKING:
    from hotvirt.server.cel.authority import Authorize

Document = dict[str, Any]
MOST = 64
_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")


def read(holder: Document) -> tuple[tuple[str, str], ...]:
    return tuple((each["name"], each["expression"]) for each in holder.get("matchConditions") or ())


def check(holder: Document, at: str, scope: Scope = WEBHOOK) -> list[Cause]:
    """Of a webhook, or of a policy's spec."""
    conditions = holder.get("matchConditions") or ()
    at = f"{at}.matchConditions"
    causes = []
    if len(conditions) > MOST:
        causes.append(Cause(TOO_MANY, f"Too many: {len(conditions)}: must have at most {MOST} items", at))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        causes += _check_name(condition.get("name") or "", f"{at}[{index}].name", seen)
        causes += check_expression(condition.get("expression"), f"{at}[{index}].expression", scope)
    return causes


def _check_name(name: str, at: str, seen: set[str]) -> Iterator[Cause]:
    if not name:
        yield Cause(REQUIRED, "Required value", at)
    elif not _NAME.match(name.rpartition("/")[2]) or len(name) > 316:
        words = "name part must consist of alphanumeric characters, '-', '_' or '.'"
        yield Cause(INVALID, f"Invalid value: {shown(name)}: {words}", at)
    elif name in seen:
        yield Cause(DUPLICATE, f"Duplicate value: {shown(name)}", at)
    seen.add(name)


def check_expression(
    text: Any, at: str, scope: Scope, gives: tuple[str, ...] = ("BOOL",), *, is_needed: bool = True
) -> Iterator[Cause]:
    if not isinstance(text, str) or not text.strip():
        if is_needed:
            yield Cause(REQUIRED, f"Required value: {at.rpartition('.')[2]} is not specified", at)
        return
    try:
        compile_text(text.strip(), scope, gives)
    except ValueError as error:
        yield Cause(INVALID, f"Invalid value: {shown(text)}: {error}", at)


def hold(
    conditions: tuple[tuple[str, str], ...], request: Document, authorize: "Authorize | None" = None
) -> tuple[bool, str]:
    """Whether a webhook's do for an AdmissionReview's request, and else what kept them from saying so. ValueError when
    one does not compile."""
    from hotvirt.server.cel.engine import Budget

    compiled = [(name, compile_text(text.strip(), WEBHOOK)) for name, text in conditions]
    return conditions_hold(compiled, cel_requests.about(request, authorize=authorize), Budget())
