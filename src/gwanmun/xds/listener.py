"""Envoy listeners: a bound port with what is served on it.

A *shape* is everything a listener depends on, as a value; equal shapes are the same listener, so nothing is built (and no
connection drained) unless a shape has changed. Routes are not part of it, only the names of their tables.
Deliberately absent: what a connection manager is set to (``http``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gwanmun.ir import ClientValidation, ConnectionSettings
from gwanmun.names import CertificateKey
from gwanmun.protos import pb, serialize
from gwanmun.xds import names
from gwanmun.xds.accesslog import connection_log
from gwanmun.xds.http import HttpChain, connection_manager
from gwanmun.xds.options import Binding
from gwanmun.xds.tls import server_tls
from gwanmun.xds.types import KEEPALIVE, ROUTES, SECRET, Fields, Need, extension, number

_BUFFER_BYTES: Final = 1024 * 1024
"""What Envoy holds for a connection that is read slower than it is written. The module raises it for bodies that it holds."""


@dataclass(frozen=True, slots=True)
class TcpChain:
    """Bytes to clusters by weight."""

    clusters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """What TLS is ended with."""

    certificates: tuple[CertificateKey, ...]
    client_validation: ClientValidation | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """What connections get: those that ask for one of `server_names` by TLS (all, if there are none). `tls_only` takes just
    connections that speak TLS; without `tls` it is passed through."""

    name: str
    serves: HttpChain | TcpChain
    server_names: tuple[str, ...] = ()
    tls: Tls | None = None
    tls_only: bool = False


@dataclass(frozen=True, slots=True)
class ListenerShape:
    name: str
    bindings: tuple[Binding, ...]
    chains: tuple[Chain, ...]
    connections: ConnectionSettings
    module_path: str | None
    access_log: str | None


@dataclass(frozen=True, slots=True)
class DatagramShape:
    """A UDP listener; each client address is a session with one endpoint of the cluster."""

    name: str
    bindings: tuple[Binding, ...]
    cluster: str


def listener(shape: ListenerShape | DatagramShape) -> bytes:
    """A Listener resource."""
    fields = _datagrams(shape) if isinstance(shape, DatagramShape) else _connections(shape)
    first, *others = [_address(binding, "UDP" if isinstance(shape, DatagramShape) else "TCP") for binding in shape.bindings]
    return serialize(
        pb("envoy.config.listener.v3.Listener")(
            name=shape.name,
            stat_prefix=shape.name,
            address=first,
            additional_addresses=[{"address": address} for address in others],
            **fields,
        )
    )


def listener_needs(shape: ListenerShape | DatagramShape) -> Iterator[Need]:
    """The resources that the listener names. A sharded one finds its tables by itself."""
    if isinstance(shape, DatagramShape):
        return
    for chain in shape.chains:
        if isinstance(chain.serves, HttpChain) and not chain.serves.shards:
            yield Need(ROUTES, chain.serves.table)
        for key in chain.tls.certificates if chain.tls is not None else ():
            yield Need(SECRET, names.certificate(key))


def _address(binding: Binding, protocol: str) -> Fields:
    return {"socket_address": {"address": binding.address, "port_value": binding.port, "protocol": protocol}}


def _connections(shape: ListenerShape) -> Fields:
    fields: Fields = {
        "filter_chains": [_filter_chain(chain, shape) for chain in shape.chains],
        "per_connection_buffer_limit_bytes": number(_BUFFER_BYTES),
        # A client that has vanished without a word ends nothing by itself; requests to models have no other limit.
        "tcp_keepalive": KEEPALIVE,
    }
    if any(chain.tls_only for chain in shape.chains):
        inspector = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
        fields["listener_filters"] = [extension("envoy.filters.listener.tls_inspector", inspector)]
    return fields


def _filter_chain(chain: Chain, shape: ListenerShape) -> Fields:
    match: Fields = {"server_names": chain.server_names}
    if chain.tls_only:
        match["transport_protocol"] = "tls"
    fields: Fields = {"name": chain.name, "filter_chain_match": match, "filters": list(_filters(chain, shape))}
    if chain.tls is not None:
        http = isinstance(chain.serves, HttpChain)
        fields["transport_socket"] = server_tls(chain.tls.certificates, chain.tls.client_validation, http=http)
    return fields


def _filters(chain: Chain, shape: ListenerShape) -> Iterator[Fields]:
    limit = shape.connections.max_connections
    if limit is not None:
        yield extension(
            "envoy.filters.network.connection_limit",
            "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
            stat_prefix=shape.name,
            max_connections=number(limit),
        )
    match chain.serves:
        case HttpChain() as serves:
            yield connection_manager(
                serves,
                stat_prefix=shape.name,
                idle_timeout=shape.connections.idle_timeout,
                module_path=shape.module_path,
                access_log=shape.access_log,
            )
        case TcpChain(clusters):
            yield _tcp_proxy(clusters, chain.name, shape)


def _tcp_proxy(clusters: tuple[tuple[str, int], ...], chain: str, shape: ListenerShape) -> Fields:
    if len(clusters) == 1:
        destination: Fields = {"cluster": clusters[0][0]}
    else:
        weighted = [{"name": name, "weight": weight} for name, weight in clusters]
        destination = {"weighted_clusters": {"clusters": weighted}}
    idle = shape.connections.idle_timeout
    return extension(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=shape.name,
        max_connect_attempts=number(3),  # a replica that has just gone costs nobody a connection
        access_log=connection_log(shape.access_log, chain, shape.module_path),
        **({"idle_timeout": idle} if idle is not None else {}),
        **destination,
    )


def _datagrams(shape: DatagramShape) -> Fields:
    route = extension("route", "envoy.extensions.filters.udp.udp_proxy.v3.Route", cluster=shape.cluster)
    proxy = extension(
        "envoy.filters.udp_listener.udp_proxy",
        "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
        stat_prefix=shape.name,
        matcher={"on_no_match": {"action": route}},
    )
    return {"udp_listener_config": {}, "listener_filters": [proxy]}
