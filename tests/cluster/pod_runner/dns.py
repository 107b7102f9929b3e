"""The cluster's DNS: answers A queries for Services over UDP (RFC 1035), from the caches, and nothing else.

`web.shop.svc.cluster.local` is the Service's address; for a headless Service the ready pods' addresses, and
`name.web.shop.svc.cluster.local` is the pod with that hostname. Pods' resolv.conf has the usual search list, so `web` and `web.shop`
work too. Names outside the cluster do not exist.
"""

import asyncio
import collections.abc
import struct
import typing

from . import addresses, services
from .api import Cache

PORT = 53
TTL_SECONDS = 1
TYPE_A = 1
CLASS_IN = 1
NO_ERROR, FORMAT_ERROR, NAME_ERROR = 0, 1, 3
MAX_ANSWERS = 25  # what fits into a UDP answer of 512 bytes beside the longest question
HEADER = struct.Struct("!6H")
RECORD = struct.Struct("!3HIH4s")
HEADLESS_PARTS = 3

Lookup = collections.abc.Callable[[str], list[str] | None]


def answer(query: bytes, lookup: Lookup) -> bytes | None:
    """Return the response to one query; None for what is not a query. `lookup` returns None for a name that does not exist."""
    if len(query) < HEADER.size:
        return None
    ident, flags, questions, *_ = HEADER.unpack_from(query)
    if flags & 0x8000:
        return None
    try:
        name, end = _name(query)
        kind, net_class = struct.unpack_from("!2H", query, end)
    except (IndexError, struct.error, UnicodeDecodeError):
        return HEADER.pack(ident, 0x8180 | FORMAT_ERROR, 0, 0, 0, 0)
    found = lookup(name.lower()) if questions == 1 and net_class == CLASS_IN else None
    code = NAME_ERROR if found is None else NO_ERROR
    chosen = (found or [])[:MAX_ANSWERS] if kind == TYPE_A else []
    records = [RECORD.pack(0xC00C, TYPE_A, CLASS_IN, TTL_SECONDS, 4, bytes(map(int, ip.split(".")))) for ip in chosen]
    header = HEADER.pack(ident, 0x8580 | code, 1, len(records), 0, 0)
    return header + query[HEADER.size : end + 4] + b"".join(records)


def _name(query: bytes) -> tuple[str, int]:
    """Return the question's name and the position behind it."""
    labels, at = [], HEADER.size
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return ".".join(labels), at + 1


def resolv_conf(namespace: str) -> str:
    """Return the resolv.conf of a pod in `namespace`."""
    domain = addresses.CLUSTER_DOMAIN
    return f"search {namespace}.svc.{domain} svc.{domain} {domain}\nnameserver {addresses.HOST}\noptions ndots:5 timeout:2\n"


def service_addresses(name: str, service_cache: Cache, slice_cache: Cache) -> list[str] | None:
    """Return the addresses of a full name below svc.cluster.local; None when there is no such Service."""
    suffix = f".svc.{addresses.CLUSTER_DOMAIN}"
    parts = name.removesuffix(suffix).split(".")
    if not name.endswith(suffix) or not 2 <= len(parts) <= HEADLESS_PARTS:
        return None
    service = service_cache.get(parts[-1], parts[-2])
    if service is None:
        return None
    address = service["spec"].get("clusterIP", "None")
    if address != "None":
        return [address] if len(parts) < HEADLESS_PARTS else None
    pairs = services.usable(services.slices_of(service, list(slice_cache.objects.values())))
    if len(parts) == HEADLESS_PARTS:
        pairs = [pair for pair in pairs if pair[1].get("hostname") == parts[0]]
    return sorted({endpoint["addresses"][0] for _, endpoint in pairs}) or None


class Responder(asyncio.DatagramProtocol):
    """The UDP end of `answer`."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = typing.cast("asyncio.DatagramTransport", transport)  # Python 3.11's own is not a subclass

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """Answer one query."""
        reply = answer(data, self._lookup)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


async def serve(service_cache: Cache, slice_cache: Cache) -> asyncio.DatagramTransport:
    """Listen on the host's address; close the transport to stop."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Responder(lambda name: service_addresses(name, service_cache, slice_cache)),
        local_addr=(addresses.HOST, PORT),
    )
    return transport
