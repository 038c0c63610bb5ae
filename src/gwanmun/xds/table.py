"""Route tables: the hosts of a listener as a RouteConfiguration, put together from parts that are kept from last time.

A table takes the one before it as a cache. What comes out depends only on what goes in now (a property test holds us to it).
Deliberately absent: single hosts (``host``), and which table belongs to which listener (``listener``).
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from gwanmun.ir import Host
from gwanmun.protos import pb, serialize
from gwanmun.xds import names
from gwanmun.xds.difference import differing
from gwanmun.xds.host import VirtualHost, virtual_host
from gwanmun.xds.route import RouteContext
from gwanmun.xds.types import Problem, no
from gwanmun.xds.wire import part

_VIRTUAL_HOSTS_FIELD: Final = 2
"""RouteConfiguration.virtual_hosts"""

_MAX_BODY_BYTES: Final = 1024 * 1024
"""The largest answer of the gateway's own. A longer one would have the whole table refused; Envoy's default is 4,096."""

_MAX_COPIES: Final = 4096
"""Rules of hosts with a wildcard are in every shard; with more copies of them sharding would cost more than it gives."""


@dataclass(frozen=True, slots=True)
class Table:
    """One RouteConfiguration. `source` is what it was made of; `hosts` and `chunks` (its elements) are sorted by domain.
    `cors`: some rule allows other origins. `picked`: some rule asks a picker."""

    name: str
    context: RouteContext
    misdirected: tuple[str, ...]
    source: Mapping[str, Host]
    hosts: Mapping[str, VirtualHost]
    chunks: Mapping[str, bytes]
    body: bytes
    problems: tuple[Problem, ...]
    cors: bool
    picked: bool


@dataclass(frozen=True, slots=True)
class Shards:
    """A big route table cut into small ones, so that a change touches one of those. `parts` are their hosts."""

    name: str
    context: RouteContext
    misdirected: tuple[str, ...]
    source: Mapping[str, Host]
    parts: tuple[Mapping[str, Host], ...]
    tables: tuple[Table, ...]


def shard_of(domain: str, count: int) -> int:
    """The shard of a host, as the native module computes it from the request's."""
    return zlib.crc32(domain.encode()) % count


def _shards_of(domain: str, count: int) -> Iterable[int]:
    return range(count) if domain[0] == "*" else (shard_of(domain, count),)


def shard_count(hosts: Mapping[str, Host], *, threshold: int, most: int) -> int:
    """Into how many shards to cut: `most`, a quarter of them where many rules would have to be in each, 0 where the table is
    small or even that were too many copies. Asked at every change, so it looks at no more hosts than it has to."""
    copied = sum([len(hosts[domain].rules) for domain in hosts if domain[0] == "*"])
    count = next((count for count in (most, most // 4) if copied * count <= _MAX_COPIES), 0)
    counts = accumulate(len(host.rules) for domain, host in hosts.items() if domain[0] != "*")
    return count if any(so_far > threshold for so_far in counts) else 0


def table(
    name: str,
    hosts: Mapping[str, Host],
    *,
    misdirected: tuple[str, ...],
    context: RouteContext,
    previous: Table | None,
) -> Table:
    """The table of these hosts. `misdirected` ones answer 421."""
    if previous is not None and (previous.name, previous.context, previous.misdirected) != (name, context, misdirected):
        previous = None
    old = previous.hosts if previous is not None else {}
    changed, removed = differing(hosts, previous.source if previous is not None else {})
    built = {domain: virtual_host(hosts[domain], context, old.get(domain)) for domain in changed}
    if previous is not None and not built and not removed:
        return previous
    chunks = {domain: part(_VIRTUAL_HOSTS_FIELD, one.body) for domain, one in built.items()}
    if previous is not None and not removed and built.keys() <= old.keys():
        built, chunks = {**old, **built}, {**previous.chunks, **chunks}  # keeps the order
    else:
        kept = previous.chunks if previous is not None else {}
        chunks = {domain: chunks[domain] if domain in chunks else kept[domain] for domain in sorted(hosts)}
        built = {domain: built[domain] if domain in built else old[domain] for domain in chunks}
    body = b"".join([_head(name, context), *chunks.values(), _misdirected(misdirected, hosts)])
    problems = tuple([problem for virtual in built.values() for problem in virtual.problems])
    cors = any(virtual.cors for virtual in built.values())
    picked = any(virtual.picked for virtual in built.values())
    return Table(name, context, misdirected, hosts, built, chunks, body, problems, cors, picked)


def shards(
    name: str,
    hosts: Mapping[str, Host],
    *,
    count: int,
    misdirected: tuple[str, ...],
    context: RouteContext,
    previous: Shards | None,
) -> Shards:
    """The same in `count` tables. Hosts with a wildcard are in all of them, for the hosts without rules of their own."""
    if previous is not None and (previous.name, previous.context, len(previous.parts)) != (name, context, count):
        previous = None
    changed, removed = differing(hosts, previous.source if previous is not None else {})
    touched: Iterable[int] = range(count)
    if previous is not None and previous.misdirected == misdirected:
        touched = {index for domain in (*changed, *removed) for index in _shards_of(domain, count)}
    parts = {index: dict(previous.parts[index]) if previous is not None else {} for index in touched}
    for domain in changed:
        for index in _shards_of(domain, count):
            parts[index][domain] = hosts[domain]
    for domain in removed:
        for index in _shards_of(domain, count):
            del parts[index][domain]
    built = {
        index: table(
            names.shard(name, index),
            part,
            misdirected=misdirected,
            context=context,
            previous=previous.tables[index] if previous is not None else None,
        )
        for index, part in parts.items()
    }
    if previous is None:
        return Shards(name, context, misdirected, hosts, tuple(parts.values()), tuple(built.values()))
    return Shards(
        name,
        context,
        misdirected,
        hosts,
        tuple(parts.get(index, part) for index, part in enumerate(previous.parts)),
        tuple(built.get(index, one) for index, one in enumerate(previous.tables)),
    )


def scopes(built: Shards) -> Iterator[tuple[str, bytes]]:
    """The ScopedRouteConfigurations that lead to the shards, by name."""
    for index, one in enumerate(built.tables):
        scope = pb("envoy.config.route.v3.ScopedRouteConfiguration")(
            name=one.name,
            route_configuration_name=one.name,
            key={"fragments": [{"string_key": built.name}, {"string_key": str(index)}]},
        )
        yield one.name, serialize(scope)


def _head(name: str, context: RouteContext) -> bytes:
    return serialize(
        pb("envoy.config.route.v3.RouteConfiguration")(
            name=name,
            ignore_port_in_host_matching=True,  # hostnames of routes have no port, whatever port clients come in on
            max_direct_response_body_size_bytes={"value": _MAX_BODY_BYTES},
            validate_clusters=no(),  # a backend that is gone must not take the other routes with it
            request_headers_to_remove=[names.SHARD_HEADER, names.TABLE_HEADER] if context.sharded else [],
        )
    )


def _misdirected(domains: tuple[str, ...], hosts: Mapping[str, Host]) -> bytes:
    """RFC 9110, 15.5.20: the client may try again on a connection of its own for that host."""
    others = sorted(set(domains) - hosts.keys())
    if not others:
        return b""
    virtual_host = pb("envoy.config.route.v3.VirtualHost")(
        name="misdirected",
        domains=others,
        routes=[{"name": "misdirected", "match": {"prefix": "/"}, "direct_response": {"status": 421}}],
    )
    return part(_VIRTUAL_HOSTS_FIELD, serialize(virtual_host))
