"""Links, addresses and routes of the test cluster, made with the `ip` program inside the cluster's own network namespace.

Each pod has a network namespace of its own, held by a `sleep` process (the pause container's part), and one veth pair. The host's end
routes the pod's single address, so traffic between pods passes the host's routing and packet filter and Service addresses (services.py)
keep the caller's address, without masquerading. There is no link to the outside: what a pod sends elsewhere is refused.
"""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import signal

from . import addresses

POD_SUBNETS = 255
HOSTS_PER_SUBNET = 254


class NetworkError(Exception):
    """A network command failed; the message holds it and its answer."""


async def run(*argv: str, stdin: str = "") -> str:
    """Run one command and return what it printed. Raises NetworkError."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await process.communicate(stdin.encode())
    if process.returncode != 0:
        raise NetworkError(f"{' '.join(argv)} failed: {err.decode().strip()}\n{stdin}")
    return out.decode()


async def set_up_host() -> None:
    """Give the cluster's namespace its addresses and let it route between pods."""
    lines = [
        "link set lo up",
        f"addr add {addresses.HOST}/32 dev lo",
        # Without a route the kernel would refuse a connection to a Service address before the packet filter can rewrite it.
        f"route add {addresses.SERVICE_CIDR} dev lo src {addresses.HOST}",
        f"route add unreachable {addresses.POD_PREFIX}0.0/16",
    ]
    await run("ip", "-batch", "-", stdin="\n".join(lines))
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


@dataclasses.dataclass(frozen=True)
class PodNetwork:
    """One pod's namespace: its address, and the process that holds it (None for hostNetwork)."""

    address: str
    holder: asyncio.subprocess.Process | None

    @property
    def namespace_path(self) -> str:
        """The file that names the namespace, for nsenter."""
        return f"/proc/{self.holder.pid if self.holder else 'self'}/ns/net"


class Networks:
    """Hands out pod networks. An address is not used again before all others were."""

    def __init__(self) -> None:
        self._made = 0

    async def create(self, *, host_network: bool) -> PodNetwork:
        """Make a namespace with a link and an address. Raises NetworkError."""
        if host_network:
            return PodNetwork(addresses.HOST, None)
        number = self._made
        self._made += 1
        address = pod_address(number)
        holder = await asyncio.create_subprocess_exec(
            "unshare", "--net", "sleep", "infinity", stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        network = PodNetwork(address, holder)
        try:
            await _separated(holder.pid)
            link = f"pod{number}"
            lines = [
                f"link add {link} type veth peer name eth0 netns {holder.pid}",
                f"addr add {addresses.GATEWAY}/32 dev {link}",
                f"link set {link} up",
                f"route add {address}/32 dev {link} src {addresses.HOST}",
            ]
            await run("ip", "-batch", "-", stdin="\n".join(lines))
            inside = [
                "link set lo up",
                f"addr add {address}/32 dev eth0",
                "link set eth0 up",
                f"route add {addresses.GATEWAY} dev eth0 scope link",
                f"route add default via {addresses.GATEWAY} dev eth0",
            ]
            enter = ("nsenter", f"--net={network.namespace_path}", "--")
            await run(*enter, "ip", "-batch", "-", stdin="\n".join(inside))
        except BaseException:
            await self.remove(network)
            raise
        return network

    async def remove(self, network: PodNetwork) -> None:
        """Kill every process that is still in the pod's namespace; the kernel then removes namespace, link and route."""
        if network.holder is None:
            return
        for pid in processes_in(network.holder.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await network.holder.wait()


def pod_address(number: int) -> str:
    """Return the address of the number-th pod: 10.244.1.1, 10.244.1.2, ..., and from the start again after 64 770."""
    subnet, host = divmod(number % (POD_SUBNETS * HOSTS_PER_SUBNET), HOSTS_PER_SUBNET)
    return f"{addresses.POD_PREFIX}{subnet + 1}.{host + 1}"


def processes_in(holder: int) -> list[int]:
    """Return the ids of all processes in the network namespace of `holder`, itself included and last."""
    try:
        wanted = pathlib.Path(f"/proc/{holder}/ns/net").stat().st_ino
    except FileNotFoundError:
        return []
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != holder:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if (entry / "ns" / "net").stat().st_ino == wanted:
                    found.append(int(entry.name))
    return [*found, holder]


async def _separated(pid: int) -> None:
    """Wait until `unshare` has made the namespace: until then the process is still in ours."""
    ours = pathlib.Path("/proc/self/ns/net").stat().st_ino
    for _ in range(200):
        if pathlib.Path(f"/proc/{pid}/ns/net").stat().st_ino != ours:
            return
        await asyncio.sleep(0.005)
    raise NetworkError("unshare made no network namespace within a second: is this running as root?")
