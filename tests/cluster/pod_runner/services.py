"""Service addresses for the test cluster: kube-proxy's and the cluster DNS's knowledge of Services and EndpointSlices.

Choice: Service addresses are real. One nftables table rewrites each connection to a Service address to one of its ready endpoints,
chosen at random, for pods, for the API server and for processes that tests start inside the namespace alike. The alternative, a DNS
that answers pod addresses, would hide what a client does with long-lived connections to a Service and would leave
KUBERNETES_SERVICE_HOST without a meaning. As in a real cluster, an established connection stays with its endpoint when the
EndpointSlice changes, and a Service without endpoints refuses connections.

Left out: NodePort, LoadBalancer, ExternalName, session affinity, traffic policies, IPv6.
"""

import asyncio
import dataclasses

from . import addresses, network
from .api import Cache, Object

SETTLE_SECONDS = 0.02  # changes come in bunches; one update serves them all
PROTOCOLS = {"TCP": "tcp", "UDP": "udp"}


@dataclasses.dataclass(frozen=True)
class Route:
    """One Service port and the endpoints that serve it now (address, port)."""

    address: str
    protocol: str
    port: int
    endpoints: tuple[tuple[str, int], ...]


def slices_of(service: Object, slices: list[Object]) -> list[Object]:
    """Return the IPv4 EndpointSlices that belong to a Service."""
    meta = service["metadata"]
    return [
        found
        for found in slices
        if found["addressType"] == "IPv4"
        and found["metadata"]["namespace"] == meta["namespace"]
        and found["metadata"].get("labels", {}).get("kubernetes.io/service-name") == meta["name"]
    ]


def usable(slices: list[Object]) -> list[tuple[Object, Object]]:
    """Return (slice, endpoint) for the ready endpoints; if there are none, for those that end but still serve."""
    every = [(found, endpoint) for found in slices for endpoint in found.get("endpoints") or []]
    ready = [pair for pair in every if pair[1].get("conditions", {}).get("ready", True)]
    return ready or [pair for pair in every if pair[1].get("conditions", {}).get("serving")]


def routes(services: list[Object], slices: list[Object]) -> list[Route]:
    """Return a Route for each port of each Service that has an address."""
    made = []
    for service in services:
        address = service["spec"].get("clusterIP", "")
        if address in {"", "None"}:
            continue
        pairs = usable(slices_of(service, slices))
        for port in service["spec"].get("ports", []):
            targets = {
                (endpoint["addresses"][0], target["port"])
                for found, endpoint in pairs
                for target in found.get("ports") or []
                if target.get("name", "") == port.get("name", "") and target.get("protocol", "TCP") == port["protocol"]
            }
            made.append(Route(address, PROTOCOLS.get(port["protocol"], "sctp"), port["port"], tuple(sorted(targets))))
    return sorted(made, key=lambda route: (route.address, route.protocol, route.port))


def ruleset(wanted: list[Route]) -> str:
    """Return the nft script that replaces the whole table in one transaction."""
    rules = [_rule(route) for route in wanted if route.endpoints]
    hairpins = sorted({address for route in wanted for address, _ in route.endpoints} - {addresses.HOST})
    # A pod that calls its own Service must not see its own address as the sender.
    own = f"ip saddr . ip daddr {{ {', '.join(f'{a} . {a}' for a in hairpins)} }} masquerade" if hairpins else ""
    refuse = f"ip daddr {addresses.SERVICE_CIDR} meta l4proto tcp reject with tcp reset"
    newline = "\n    "
    return f"""table ip services {{}}
flush table ip services
table ip services {{
  chain choose {{
    {newline.join(rules)}
  }}
  chain from_pods {{ type nat hook prerouting priority dstnat; jump choose; }}
  chain from_host {{ type nat hook output priority -100; jump choose; }}
  chain to_self {{ type nat hook postrouting priority srcnat; {own}; }}
  chain refuse_pods {{ type filter hook prerouting priority dstnat + 10; {refuse}; }}
  chain refuse_host {{ type filter hook output priority filter; {refuse}; }}
}}
"""


def _rule(route: Route) -> str:
    match = f"ip daddr {route.address} {route.protocol} dport {route.port}"
    if len(route.endpoints) == 1:
        (only,) = route.endpoints
        return f"{match} dnat to {only[0]}:{only[1]}"
    numbered = ", ".join(f"{index} : {address} . {port}" for index, (address, port) in enumerate(route.endpoints))
    return f"{match} dnat to numgen random mod {len(route.endpoints)} map {{ {numbered} }}"


class Proxy:
    """Keeps the table equal to what the caches say."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._applied = ""

    def wake(self, _kind: str, _obj: Object) -> None:
        """Say that a Service or an EndpointSlice changed; the signature is that of Cache's callback."""
        self._changed.set()

    async def run(self, services: Cache, slices: Cache) -> None:
        """Follow until cancelled. Raises NetworkError when nft refuses."""
        await services.filled.wait()
        await slices.filled.wait()
        while True:
            script = ruleset(routes(list(services.objects.values()), list(slices.objects.values())))
            if script != self._applied:
                await network.run("nft", "-f", "-", stdin=script)
                self._applied = script
            await self._changed.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._changed.clear()
