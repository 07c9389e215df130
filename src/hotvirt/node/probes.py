"""What a guest's probes ask and when, and what their answers mean. Pure: time is an argument.

As a kubelet has it: a probe's word changes when it failed, or succeeded, as often in a row as its threshold says. Until
the first change a guest is alive, and ready only if it was told to be before (by an earlier home).
"""

import zlib
from typing import Any, Literal

from msgspec import Struct

from hotvirt.api.validation_probes import ports

Document = dict[str, Any]
ProbeKind = Literal["readiness", "liveness"]
FIELDS: dict[ProbeKind, str] = {"readiness": "readinessProbe", "liveness": "livenessProbe"}
MOST_TOLD = 4
PAUSES = "kubevirt.io/pause-guest-agent-probes"
"""Annotation that keeps probes by the guest's agent from being asked while it is `true`."""


class Ping(Struct, frozen=True, tag=True):
    """Whether the agent answers."""


class Exec(Struct, frozen=True, tag=True):
    """A program of the guest, run by its agent."""

    command: tuple[str, ...]


class Tcp(Struct, frozen=True, tag=True):
    port: int


class Http(Struct, frozen=True, tag=True):
    port: int
    path: str = "/"
    is_tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()


Question = Ping | Exec | Tcp | Http


class Probe(Struct, frozen=True):
    kind: ProbeKind
    question: Question
    delay: float = 0.0
    timeout: float = 1.0
    period: float = 10.0
    successes: int = 1
    failures: int = 3

    @property
    def is_by_agent(self) -> bool:
        return isinstance(self.question, Ping | Exec)


class Answer(Struct, frozen=True):
    """`words` say what went wrong, and may be the guest's: cleaned and bounded by who asked."""

    ok: bool
    words: str = ""


class Track(Struct):
    """One probe of one guest over time."""

    probe: Probe
    due: float
    word: bool | None = None
    """What the probe says of the guest; None before it was asked often enough."""
    row: int = 0
    """Answers in a row, positive for successes, negative for failures."""
    told: tuple[str, ...] = ()
    """Failures that were told of since the probe last came to say yes."""

    def take(self, answer: Answer, now: float) -> bool:
        """Count an answer. Whether the probe's word changed, or is said the first time."""
        self.due = now + self.probe.period
        self.row = max(self.row, 0) + 1 if answer.ok else min(self.row, 0) - 1
        enough = self.row >= self.probe.successes if answer.ok else -self.row >= self.probe.failures
        if not enough or self.word is answer.ok:
            return False
        self.word = answer.ok
        if answer.ok:
            self.told = ()
        return True

    def is_news(self, answer: Answer) -> bool:
        """Whether a failure is to be told of: each kind once, and a guest that fails with other words each time makes
        no more news than others."""
        if answer.ok or answer.words in self.told or len(self.told) >= MOST_TOLD:
            return False
        self.told = (*self.told, answer.words)
        return True

    def skip(self, now: float) -> None:
        """The guest cannot be asked now (it stands still, or its filesystems are frozen), which says nothing of it."""
        self.due = now + self.probe.period


def of(vmi: Document) -> tuple[Probe, ...]:
    """The probes of an instance, as admission let them in."""
    found = []
    for kind, field in FIELDS.items():
        asked = vmi["spec"].get(field) or {}
        if (question := _question(asked, vmi["spec"])) is not None:
            found.append(
                Probe(
                    kind, question, delay=float(asked.get("initialDelaySeconds") or 0),
                    timeout=float(asked.get("timeoutSeconds") or 1), period=float(asked.get("periodSeconds") or 10),
                    successes=int(asked.get("successThreshold") or 1), failures=int(asked.get("failureThreshold") or 3),
                )
            )  # fmt: skip
    return tuple(found)


def _question(asked: Document, spec: Document) -> Question | None:
    if asked.get("guestAgentPing") is not None:
        return Ping()
    if (program := asked.get("exec")) is not None:
        return Exec(tuple(program.get("command") or ()))
    if (tcp := asked.get("tcpSocket")) is not None:
        return Tcp(_port(tcp["port"], spec))
    if (http := asked.get("httpGet")) is not None:
        headers = tuple((str(h["name"]), str(h.get("value") or "")) for h in http.get("httpHeaders") or ())
        path = str(http.get("path") or "/")
        return Http(
            _port(http["port"], spec), path if path.startswith("/") else f"/{path}", http.get("scheme") == "HTTPS",
            headers,
        )  # fmt: skip
    return None


def _port(port: object, spec: Document) -> int:
    text = str(port)
    return int(text) if text.isdigit() else ports(spec).get(text, 0)


def first_due(probe: Probe, uid: str, *, running_since: float, now: float) -> float:
    """When it is to be asked first. A home that comes back finds all of them due: they are spread over their period,
    each always at the same place in it."""
    due = running_since + probe.delay
    if due > now - 1.0:
        return due
    return now + probe.period * (zlib.crc32(f"{uid} {probe.kind}".encode()) % 1000) / 1000


def is_mute(vmi: Document, probe: Probe, *, frozen: bool) -> bool:
    """Whether the guest cannot answer at present, for no fault of its own."""
    found = (vmi.get("status") or {}).get("conditions") or ()
    if any(each.get("type") == "Paused" and each.get("status") == "True" for each in found):
        return True
    if not probe.is_by_agent:
        return False
    annotations = vmi["metadata"].get("annotations") or {}
    return (frozen and isinstance(probe.question, Exec)) or str(annotations.get(PAUSES)).lower() == "true"
