"""Words of `nft -j`: the parts of rules, and tables made of them. Pure.

A table is written anew as a whole, in one transaction with its removal, so that no packet ever meets half of it.
"""

from collections.abc import Iterable
from typing import Any

Expression = dict[str, Any]
Command = dict[str, Any]
ACCEPT: Expression = {"accept": None}
DROP: Expression = {"drop": None}
MASQUERADE: Expression = {"masquerade": None}
REFUSE: Expression = {"reject": {"type": "icmp", "expr": "port-unreachable"}}
"""A TCP client sees its connection refused, at once."""


def payload(protocol: str, field: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": field}}


def meta(key: str) -> Expression:
    return {"meta": {"key": key}}


SOURCE, DESTINATION = payload("ip", "saddr"), payload("ip", "daddr")
PROTOCOL, PORT = meta("l4proto"), payload("th", "dport")
IN, OUT = meta("iifname"), meta("oifname")
IS_HOSTS: Expression = {
    "match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}
}
"""Whether the destination is an address of the host."""
ESTABLISHED: Expression = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}


def equal(left: Expression, right: Any) -> Expression:
    return {"match": {"op": "==", "left": left, "right": right}}


def differs(left: Expression, right: Any) -> Expression:
    return {"match": {"op": "!=", "left": left, "right": right}}


def concat(*parts: Any) -> Expression:
    return {"concat": list(parts)}


def any_of(values: Iterable[Any]) -> Expression:
    return {"set": list(values)}


def prefix(text: str) -> Any:
    address, _, length = text.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


def jump(chain: str) -> Expression:
    return {"jump": {"target": chain}}


def goto(chain: str) -> Expression:
    return {"goto": {"target": chain}}


def verdicts(key: Expression, pairs: Iterable[tuple[Any, Expression]]) -> Expression:
    """By the key's value, the verdict of its pair. Not for no pairs: nft has no empty map in a rule."""
    return {"vmap": {"key": key, "data": {"set": [[value, verdict] for value, verdict in pairs]}}}


class Table:
    """One of ours in the making."""

    def __init__(self, family: str, name: str) -> None:
        self._table = {"family": family, "name": name}
        self._chains: list[Command] = []
        self._rules: list[Command] = []

    def hook(self, chain: str, kind: str, *, at: str, priority: int) -> None:
        """A chain that packets come to by themselves."""
        self.chain(chain, type=kind, hook=at, prio=priority, policy="accept")

    def chain(self, name: str, **more: Any) -> None:
        of = {"family": self._table["family"], "table": self._table["name"]}
        self._chains.append({"add": {"chain": {**of, "name": name, **more}}})

    def rule(self, chain: str, *expressions: Expression) -> None:
        of = {"family": self._table["family"], "table": self._table["name"]}
        self._rules.append({"add": {"rule": {**of, "chain": chain, "expr": list(expressions)}}})

    def ways(self, name: str, *, of: str) -> None:
        """A map from what packets have, of that type, to verdicts; it grows while it is in use."""
        table = {"family": self._table["family"], "table": self._table["name"]}
        self._chains.append({"add": {"map": {**table, "name": name, "type": of, "map": "verdict"}}})

    def way(self, name: str, value: Any, verdict: Expression) -> None:
        table = {"family": self._table["family"], "table": self._table["name"]}
        self._rules.append({"add": {"element": {**table, "name": name, "elem": [[value, verdict]]}}})

    def added(self) -> list[Command]:
        """What adds its chains and rules to a table that is there."""
        return [*self._chains, *self._rules]

    def anew(self) -> list[Command]:
        """What puts it in the place of what was there, if anything."""
        return [*removal(self._table["family"], self._table["name"]), {"add": {"table": self._table}}, *self.added()]


def removal(family: str, name: str) -> list[Command]:
    """Also of a table that is not there."""
    table = {"family": family, "name": name}
    return [{"add": {"table": table}}, {"delete": {"table": table}}]


def document(commands: Iterable[Command]) -> dict[str, Any]:
    return {"nftables": list(commands)}
