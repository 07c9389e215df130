"""Where services' addresses and node ports lead, as rules. Pure.

A connection is sent to one of the endpoints when it begins, and stays with it, whatever changes after. With the
affinity ClientIP the client's address decides, so a client comes to the same endpoint for as long as the endpoints are
the same: there is no state that a new set of rules could lose. A guest that comes to itself by its service's address is
answered by way of the host.
"""

from collections.abc import Iterable

from hotvirt.node import nft
from hotvirt.node.nft import Expression, Table
from hotvirt.node.world import ServicePort

SERVICES, NODE_PORTS = "services", "node-ports"
DESTINATION_NAT = -100


def add(table: Table, ports: Iterable[ServicePort], *, taps: str) -> None:
    """`taps`: the names of guests' taps, as a pattern. Only they and the host itself reach services' addresses; node
    ports are for all that reach the host."""
    found = list(ports)
    table.hook("prerouting", "nat", at="prerouting", priority=DESTINATION_NAT)
    table.hook("output", "nat", at="output", priority=DESTINATION_NAT)
    table.chain(SERVICES)
    table.chain(NODE_PORTS)
    table.rule("prerouting", nft.equal(nft.IN, taps), nft.jump(SERVICES))
    table.rule("output", nft.jump(SERVICES))
    table.rule("prerouting", nft.IS_HOSTS, nft.jump(NODE_PORTS))
    # An answer to 127.0.0.1 would not find back from a guest.
    loopback = nft.differs(nft.DESTINATION, nft.prefix("127.0.0.0/8"))
    table.rule("output", loopback, nft.IS_HOSTS, nft.jump(NODE_PORTS))
    _ways(table, [port for port in found if port.targets])


def hairpins(ports: Iterable[ServicePort]) -> Expression | None:
    """Whether a guest speaks to itself, by way of a service."""
    addresses = sorted({address for port in ports for address, _ in port.targets})
    if not addresses:
        return None
    both = nft.concat(nft.SOURCE, nft.DESTINATION)
    return nft.equal(both, nft.any_of(nft.concat(each, each) for each in addresses))


def _ways(table: Table, ports: list[ServicePort]) -> None:
    by_address: list[tuple[Expression, Expression]] = []
    by_node_port: dict[tuple[str, int], Expression] = {}
    endpoints: dict[str, tuple[str, tuple[str, int]]] = {}
    for port in ports:
        chain = f"service-{port.service}/{port.protocol}/{port.port}"
        table.chain(chain)
        table.rule(chain, _choice(port))
        by_address.append((nft.concat(port.address, port.protocol, port.port), nft.goto(chain)))
        if port.node_port:
            by_node_port[(port.protocol, port.node_port)] = nft.goto(chain)
        endpoints |= {_endpoint(port.protocol, target): (port.protocol, target) for target in port.targets}
    for chain, (protocol, (address, number)) in sorted(endpoints.items()):
        table.chain(chain)
        way = {"dnat": {"family": "ip", "addr": address, "port": number}}
        table.rule(chain, nft.equal(nft.PROTOCOL, protocol), way)
    if by_address:
        key = nft.concat(nft.DESTINATION, nft.PROTOCOL, nft.PORT)
        table.rule(SERVICES, nft.verdicts(key, by_address))
    if by_node_port:
        pairs = ((nft.concat(*key), way) for key, way in by_node_port.items())
        table.rule(NODE_PORTS, nft.verdicts(nft.concat(nft.PROTOCOL, nft.PORT), pairs))


def _choice(port: ServicePort) -> Expression:
    ways = [nft.goto(_endpoint(port.protocol, target)) for target in port.targets]
    if len(ways) == 1:
        return ways[0]
    by_client = {"jhash": {"mod": len(ways), "expr": nft.SOURCE}}
    at_random = {"numgen": {"mode": "random", "mod": len(ways), "offset": 0}}
    return nft.verdicts(by_client if port.sticky else at_random, enumerate(ways))


def _endpoint(protocol: str, target: tuple[str, int]) -> str:
    return f"endpoint-{target[0]}/{protocol}/{target[1]}"
