"""Clusters: one for each way of speaking to a port of a backend.

Deliberately absent: where the backend is (``endpoint``), but for host names: those Envoy resolves itself, from the cluster.
"""

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Final

from gwanmun.ir import Backend, Endpoints
from gwanmun.protos import any_of, pb, serialize
from gwanmun.xds import names
from gwanmun.xds.endpoint import ACTIVE_REQUEST_BIAS, Place, load_assignment, spills
from gwanmun.xds.picker import picked_endpoints
from gwanmun.xds.tls import backend_tls
from gwanmun.xds.types import ADS, KEEPALIVE, Fields, extension, number

_UNLIMITED: Final = 1_000_000
"""Envoy's own limits (1,024 connections and requests, 3 retries) fail under ordinary load, and are wrong for a backend whose
capacity we do not know. Bounds are a policy's business."""

_HTTP1_KEPT: Final = timedelta(seconds=4)
"""How long an idle connection to a backend is kept. uvicorn (vLLM) closes it after 5 s, and a request that is sent at that
very moment fails; so we are first. A new connection inside a cluster costs a fraction of a millisecond."""

_TLS_KEPT: Final = timedelta(seconds=50)
"""With TLS a new connection is dear, and such backends are mostly other proxies, which keep connections for a minute."""

_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_STREAM_WINDOW: Final = 1024 * 1024
_CONNECTION_WINDOW: Final = 16 * 1024 * 1024
_DNS_REFRESH: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class ClusterContext:
    """What all clusters share."""

    connect_timeout: timedelta
    system_trust: str
    place: Place


def needs_dns(endpoints: Endpoints | None) -> bool:
    """Whether Envoy has to look a host name up."""
    return endpoints is not None and any(not _is_address(one.address) for one in endpoints.endpoints)


def cluster(backend: Backend, endpoints: Endpoints | None, context: ClusterContext) -> bytes:
    """A Cluster resource. `endpoints` are part of it only where Envoy has to look names up."""
    name = names.cluster(backend.key)
    fields: Fields = {
        **_common(name, context),
        **(_LEAST_REQUEST if backend.picker is None else picked_endpoints(backend.picker)),
        **_http_options(backend),
    }
    if backend.prefer is not None:
        fields["outlier_detection"] = _OUTLIERS | _OVERLOADED
        # Below half of a priority Envoy would try those that are out as well, though there are others further away.
        fields["common_lb_config"]["healthy_panic_threshold"] = {"value": 1}
    if spills(backend):
        fields["least_request_lb_config"] = _BIASED
    if endpoints is None:
        fields |= _EDS
    else:
        fields |= _dns(load_assignment(backend, endpoints, context.place))
    if backend.tls is not None:
        fields["transport_socket"] = backend_tls(backend.tls, backend.protocol, context.system_trust)
    return serialize(pb("envoy.config.cluster.v3.Cluster")(**fields))


def weighted_cluster(name: str, assignment: Fields | None, context: ClusterContext) -> bytes:
    """A cluster whose localities get exactly their weights. `assignment` (of ``endpoint.weighted_assignment``) is part of it
    only where Envoy has to look names up."""
    fields = _common(name, context) | (_EDS if assignment is None else _dns(assignment))
    fields["common_lb_config"]["locality_weighted_lb_config"] = {}
    return serialize(pb("envoy.config.cluster.v3.Cluster")(lb_policy="ROUND_ROBIN", **fields))


_OUTLIERS: Final[Fields] = {
    # An endpoint that cannot be reached (refused, reset, silent) is passed over for a while, so that another one, or the
    # next zone, takes its share. What a backend answers is its own business: no status code counts. Where all endpoints are
    # out, Envoy tries them all the same (panic), which is never worse than an error at once.
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": number(3),
    "enforcing_consecutive_5xx": number(0),
    "enforcing_success_rate": number(0),
    "enforcing_local_origin_success_rate": number(0),
    "interval": timedelta(seconds=1),
    "base_ejection_time": timedelta(seconds=5),
    "max_ejection_time": timedelta(seconds=30),
    "max_ejection_percent": number(100),
}

_OVERLOADED: Final[Fields] = {
    # Near endpoints take everything, so those that say again and again that they cannot (502, 503, 504) are passed over too:
    # only then does their share go to the next zone.
    "consecutive_gateway_failure": number(5),
    "enforcing_consecutive_gateway_failure": number(100),
}

_LEAST_REQUEST: Final[Fields] = {"lb_policy": "LEAST_REQUEST"}
_BIASED: Final[Fields] = {
    "active_request_bias": {"default_value": ACTIVE_REQUEST_BIAS, "runtime_key": "gwanmun.active_request_bias"}
}

_EDS: Final[Fields] = {"type": "EDS", "eds_cluster_config": {"eds_config": ADS}}


def _dns(assignment: Fields) -> Fields:
    return {
        "cluster_type": extension(
            "envoy.clusters.dns",
            "envoy.extensions.clusters.dns.v3.DnsCluster",
            dns_refresh_rate=_DNS_REFRESH,
            respect_dns_ttl=True,
            dns_lookup_family="V4_PREFERRED",
        ),
        "load_assignment": assignment,
    }


def _common(name: str, context: ClusterContext) -> Fields:
    limits = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"),
        number(_UNLIMITED),
    )
    return {
        "name": name,
        "connect_timeout": context.connect_timeout,
        "circuit_breakers": {"thresholds": [limits]},
        # An endpoint that has gone must be out at once; the default collects changes for a second.
        "common_lb_config": {"update_merge_window": timedelta(0)},
        "outlier_detection": _OUTLIERS,
        "upstream_connection_options": {"tcp_keepalive": KEEPALIVE},
    }


def _http_options(backend: Backend) -> Fields:
    match backend.protocol:
        case "http1":
            explicit: Fields = {"http_protocol_options": {}}
            common: Fields = {"idle_timeout": _HTTP1_KEPT if backend.tls is None else _TLS_KEPT}
        case "http2":
            window = {
                "initial_stream_window_size": number(_STREAM_WINDOW),
                "initial_connection_window_size": number(_CONNECTION_WINDOW),
            }
            explicit, common = {"http2_protocol_options": window}, {}
        case _:
            return {}
    options = pb(_HTTP_OPTIONS)(explicit_http_config=explicit, common_http_protocol_options=common)
    return {"typed_extension_protocol_options": {_HTTP_OPTIONS: any_of(options)}}


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
