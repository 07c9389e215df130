"""What can be wrong with `spec.readinessProbe` and `spec.livenessProbe`; the rules are KubeVirt's. Pure."""

import re
from collections.abc import Iterator
from typing import Any

from hotvirt.api.faults import Fault, invalid, required

Document = dict[str, Any]
HANDLERS = ("exec", "guestAgentPing", "httpGet", "tcpSocket")
TIMINGS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
KINDS = ("readinessProbe", "livenessProbe")
LONGEST_WAIT = 86400
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check(spec: Document, path: str) -> Iterator[Fault]:
    """Faults of an instance's probes at `path`. What is not supported is told elsewhere, from the table of fields."""
    for kind in KINDS:
        if (probe := spec.get(kind)) is not None:
            yield from _probe(probe, spec, f"{path}.{kind}")
    liveness = spec.get("livenessProbe") or {}
    if spec.get("startStrategy") == "Paused" and liveness:
        message = "a guest that starts paused answers no probe, which would end it: remove it or startStrategy"
        yield invalid(f"{path}.livenessProbe", message)
    if (liveness.get("successThreshold") or 1) > 1:
        message = "must be 1: a guest is alive as soon as it answers once"
        yield invalid(f"{path}.livenessProbe.successThreshold", message)


def _probe(probe: Document, spec: Document, path: str) -> Iterator[Fault]:
    given = [name for name in HANDLERS if probe.get(name) is not None]
    if len(given) != 1:
        yield invalid(path, f"names {len(given)} of {', '.join(HANDLERS)}: a probe is exactly one of them")
    for field in TIMINGS:
        if not 0 <= (probe.get(field) or 0) <= LONGEST_WAIT:
            yield invalid(f"{path}.{field}", f"must be 0 (the default) to {LONGEST_WAIT}")
    if (command := probe.get("exec")) is not None and not (command.get("command") or [""])[0]:
        yield required(f"{path}.exec.command", "name the program of the guest to run, and its arguments")
    for name in ("httpGet", "tcpSocket"):
        if (asked := probe.get(name)) is None:
            continue
        if not _has_pod_network(spec):
            yield invalid(f"{path}.{name}", "needs an interface on the pod network: add one, or use guestAgentPing")
        yield from _port(asked.get("port"), spec, f"{path}.{name}.port")
    yield from _http(probe.get("httpGet") or {}, f"{path}.httpGet")


def _has_pod_network(spec: Document) -> bool:
    networks, devices = spec.get("networks") or (), (spec.get("domain") or {}).get("devices") or {}
    if not networks and not devices.get("interfaces"):
        return devices.get("autoattachPodInterface") is not False
    return any(network.get("pod") is not None for network in networks)


def _port(port: object, spec: Document, path: str) -> Iterator[Fault]:
    text = str(port)
    if text.isascii() and text.isdigit():
        if not 0 < int(text[:6]) < 65536:
            yield invalid(path, f"{text[:20]} is no port: use 1 to 65535")
    elif text not in ports(spec):
        message = f"{text[:80]!r} is no number, and no interface has a port of that name: add it to the interface"
        yield invalid(path, message)


def ports(spec: Document) -> dict[str, int]:
    """The names that interfaces give to TCP ports of the guest."""
    interfaces = ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or ()
    found = [port for interface in interfaces for port in interface.get("ports") or ()]
    tcp = [each for each in found if str(each.get("protocol") or "TCP").upper() == "TCP"]
    return {str(each["name"]): int(each["port"]) for each in tcp if each.get("name")}


def _http(asked: Document, path: str) -> Iterator[Fault]:
    if asked.get("scheme") not in (None, "", "HTTP", "HTTPS"):
        yield invalid(f"{path}.scheme", f"{asked['scheme'][:20]!r} is unknown: use HTTP or HTTPS")
    if not _is_plain(asked.get("path") or ""):
        yield invalid(f"{path}.path", "has blanks or control characters: write them as %20 and so on")
    for index, header in enumerate(asked.get("httpHeaders") or ()):
        here = f"{path}.httpHeaders[{index}]"
        if not _TOKEN.fullmatch(header.get("name") or ""):
            yield invalid(f"{here}.name", "is no name of a header: use letters, digits and '-'")
        if not _is_plain((header.get("value") or "").replace(" ", "")):
            yield invalid(f"{here}.value", "has control characters: write it in one line of ASCII")


def _is_plain(text: str) -> bool:
    return text.isascii() and all(character.isprintable() and character != " " for character in text)
