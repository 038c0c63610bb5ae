"""What Envoy is started with: where the control plane is, and what cannot be changed while it runs.

Pure: options in, a JSON document out. Everything that can come over xDS does, since a change here costs a hot restart.
Deliberately absent: listeners, routes and backends; file system and process.
"""

import hashlib
import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

XDS_CLUSTER = "gwanmun_xds"
XDS_TOKEN_SECRET = "gwanmun_xds_token"  # noqa: S105 (a name, not a secret)
XDS_CA_SECRET = "gwanmun_xds_ca"  # noqa: S105 (a name, not a secret)

MODULE_METRICS = "/gwanmun/metrics"
"""Where the native module's counts are, at the admin interface."""

AdminAddress = PurePath | int
"""A unix socket, or a port on 127.0.0.1."""

_CLUSTER = r"cluster\.(.*([^l]|[^a]l|[^n]al|[^r]nal|[^e]rnal|[^t]ernal|[^nx]ternal|[^i]nternal|[^e]xternal|[^.](in|ex)ternal))"
"""A cluster, but neither `.external` nor `.internal` of it: Envoy counts requests and takes their times twice, once by where
their clients seem to be. RE2 has no other way to say so."""

_STATISTICS = (
    # The proxy itself.
    r"server\.(live|state|uptime|concurrency|memory_allocated|memory_heap_size|memory_physical_size|total_connections"
    r"|hot_restart_epoch|watchdog_miss|watchdog_mega_miss|days_until_first_cert_expiring)",
    r"(cluster_manager|listener_manager|control_plane|overload|runtime|main_thread|workers)\..*",
    r"dynamicmodules.*",
    # Configuration that arrived, or was refused: LDS, CDS, RDS, SDS, EDS.
    r".*\.(update_attempt|update_success|update_failure|update_rejected|init_fetch_timeout|key_rotation_failed"
    r"|ssl_context_update_by_sds)",
    # Requests, at the front and towards backends.
    r".*\.downstream_rq_(\dxx|total|completed|active|time|timeout|too_large|rx_reset|tx_reset|overload_close)",
    _CLUSTER + r"\.upstream_rq_(\dxx|\d\d\d|total|completed|active|time|timeout|rx_reset|tx_reset)",
    r".*\.upstream_rq_(pending_active|pending_overflow|pending_failure_eject|per_try_timeout|per_try_idle_timeout"
    r"|retry|retry_success|retry_overflow|retry_limit_exceeded|maintenance_mode|max_duration_reached)",
    r".*\.(rq_total|rq_direct_response|no_route|no_cluster|rq_redirect|rq_overload_local_reply)",
    # Connections.
    r".*\.downstream_cx_length_ms",
    r".*\.(downstream|upstream)_cx_(total|active|overflow|connect_fail|connect_timeout|destroy_remote"
    r"|destroy_local_with_active_rq|destroy_remote_with_active_rq|tx_bytes_total|rx_bytes_total|idle_timeout"
    r"|http1_total|http2_total|ssl_total|no_route|max_duration_reached|overload_reject|max_requests|delayed_close_timeout)",
    r".*\.(downstream_listener_filter_error|downstream_global_cx_overflow|no_filter_chain_match|downstream_sess_active"
    r"|downstream_sess_total)",
    r".*\.ssl\.(handshake|connection_error|fail_verify_error|fail_verify_no_cert|fail_verify_san|no_certificate)",
    # Backends: who is there, who is healthy, what is full.
    r"cluster\..*\.(membership_(total|healthy|degraded|change)|lb_healthy_panic)",
    r"cluster\..*\.(outlier_detection\.ejections_(active|total|overflow)|health_check\.(attempt|success|failure))",
    r"cluster\..*\.circuit_breakers\.default\..*_open",
    # What filters decided.
    r".*\.(local_rate_limit|ratelimit|jwt_authn|ext_authz|rbac|cors|fault|api_key_auth)\..*",
)
"""The statistics that Envoy keeps, as full-match RE2 patterns. With 5,000 routes all of them would cost more memory than
the routes do; what is not listed here is never allocated. Each histogram of a backend is twenty series to a scrape: there
is one, the time of requests."""

_BUCKETS_MS = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000]
"""Upper bounds, in milliseconds: first bytes come in milliseconds, whole generations take minutes."""

_RUNTIME = {
    # RE2 refuses by itself a pattern whose program would need more than 8 MB, and so does `resolve`, which asks RE2 too. A
    # lower limit here (Envoy's own is 100) would refuse what resolve lets through, and the whole route configuration with it.
    "re2.max_program_size.error_level": 4_000_000_000,
    "re2.max_program_size.warn_level": 65_536,
}


@dataclass(frozen=True, slots=True)
class XdsEndpoint:
    """A control plane on another machine, over TLS. `host` is a DNS name or an IP address.

    Its certificate has to be for `server_name` and signed by an authority in `ca_secret`. `token_secret` holds what this
    proxy shows who it is with: the bearer token of every stream that it opens. Both are files as `ca_secret_file` and
    `token_secret_file` make them; they are read again when another file is moved to their place.
    """

    host: str
    port: int
    server_name: str
    ca_secret: PurePath
    token_secret: PurePath


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """`xds_socket` is where the control plane is: a unix socket of this machine, or an endpoint of the network.

    `zone` is this proxy's own; backends of the same zone can be preferred. `max_connections` bounds the connections
    that clients hold open on the whole proxy (more are closed at once); None leaves that to the limit on open files.
    `max_heap_bytes` is what Envoy may allocate: near it memory is given back, and then requests are refused instead of
    the process being killed. `metadata` is told to the control plane. With `json_logs` each line of Envoy's own log is an
    object. `module` is the native module, which shows what it has counted at `MODULE_METRICS` of the admin interface.
    """

    node_id: str
    admin: AdminAddress
    xds_socket: PurePath | XdsEndpoint
    node_cluster: str = "gwanmun"
    zone: str | None = None
    max_connections: int | None = None
    max_heap_bytes: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    json_logs: bool = False
    module: PurePath | None = None


def bootstrap(options: BootstrapOptions) -> dict[str, Any]:
    """Envoy's bootstrap as its JSON says it."""
    xds = options.xds_socket
    cluster = _remote_xds_cluster(xds) if isinstance(xds, XdsEndpoint) else _local_xds_cluster(xds)
    document: dict[str, Any] = {
        "node": _node(options),
        "admin": _admin(options.admin),
        "dynamic_resources": _dynamic_resources(),
        "static_resources": {"clusters": [cluster]},
        "layered_runtime": {"layers": [{"name": "gwanmun", "static_layer": _RUNTIME}]},
        "bootstrap_extensions": list(_extensions(options)),
        "stats_config": _stats_config(),
        # Statistics of a cluster are made when its first request comes: most of thousands never see one.
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        # No sink is configured: numbers are brought up to date when somebody asks, and never stale.
        "stats_flush_on_admin": True,
    }
    if options.max_connections is not None or options.max_heap_bytes is not None:
        document["overload_manager"] = _overload_manager(options)
    if options.json_logs:
        document["application_log_config"] = {"log_format": {"json_format": _LOG_LINE}}
    return document


def token_secret_file(token: str) -> bytes:
    """What `XdsEndpoint.token_secret` holds."""
    return _secret_file({"name": XDS_TOKEN_SECRET, "generic_secret": {"secret": {"inline_string": token}}})


def ca_secret_file(pem: str) -> bytes:
    """What `XdsEndpoint.ca_secret` holds."""
    return _secret_file({"name": XDS_CA_SECRET, "validation_context": {"trusted_ca": {"inline_string": pem}}})


def _secret_file(secret: Mapping[str, Any]) -> bytes:
    kind = _TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret"
    return json.dumps({"resources": [{"@type": kind, **secret}]}).encode()


def serialize_bootstrap(document: Mapping[str, Any]) -> bytes:
    """Its bytes; equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, indent=1).encode()


def fingerprint(*parts: bytes) -> str:
    """What tells whether a running Envoy was started with the same: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


_TYPE = "type.googleapis.com/"
_MODULE_EXTENSION = "envoy.extensions.bootstrap.dynamic_modules.v3.DynamicModuleBootstrapExtension"
_INTERNAL_LISTENER = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECTION_MONITOR = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
_HEAP_MONITOR = "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"
_UPSTREAM_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_INJECTOR = "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector"
_GENERIC_CREDENTIAL = "envoy.extensions.http.injected_credentials.generic.v3.Generic"
_UPSTREAM_CODEC = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"

_LOG_LINE = {"timestamp": "%Y-%m-%dT%T.%fZ", "level": "%l", "logger": "envoy.%n", "event": "%j"}
"""spdlog's flags, all of which Envoy allows in JSON; %j is the message, escaped."""


def _extensions(options: BootstrapOptions) -> Iterator[dict[str, Any]]:
    yield _extension("envoy.bootstrap.internal_listener", _INTERNAL_LISTENER)
    if options.module is not None:
        # As listeners name it (`xds.module`, which is not imported for it: with it came all of the translator).
        module = {"module": {"local": {"filename": str(options.module)}}, "do_not_close": True}
        yield _extension("gwanmun.admin", _MODULE_EXTENSION, dynamic_module_config=module, extension_name="admin")


def _extension(name: str, type_name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": _TYPE + type_name, **fields}}


def _node(options: BootstrapOptions) -> dict[str, Any]:
    node: dict[str, Any] = {"id": options.node_id, "cluster": options.node_cluster}
    if options.zone is not None:
        node["locality"] = {"zone": options.zone}
    if options.metadata:
        node["metadata"] = dict(options.metadata)
    return node


def _admin(address: AdminAddress) -> dict[str, Any]:
    if isinstance(address, int):
        where: dict[str, Any] = {"socket_address": {"address": "127.0.0.1", "port_value": address}}
    else:
        where = {"pipe": {"path": str(address), "mode": 0o600}}
    # An operator must get in just when the proxy is full.
    return {"address": where, "ignore_global_conn_limit": True}


def _dynamic_resources() -> dict[str, Any]:
    # 0 s waits for as long as it takes: a proxy that gave up waiting would open its ports with half a configuration.
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [
                {
                    "envoy_grpc": {
                        "cluster_name": XDS_CLUSTER,
                        # The control plane is on this machine: asking often costs nothing, and Envoy's default (up to
                        # 30 s) would leave a restarted one waiting.
                        "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "2s"}},
                    }
                }
            ],
        },
        "cds_config": source,
        "lds_config": source,
    }


def _local_xds_cluster(socket: PurePath) -> dict[str, Any]:
    """No keepalive: a unix socket tells at once when its other end is gone."""
    return {
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": _http2(),
        "load_assignment": _assignment({"pipe": {"path": str(socket)}}),
    }


def _remote_xds_cluster(endpoint: XdsEndpoint) -> dict[str, Any]:
    """Probes of TCP find a machine that has gone without a word. Pings of HTTP/2 would too, but gRPC servers take those
    that come more often than every five minutes for an attack, and close the stream."""
    return {
        "name": XDS_CLUSTER,
        # A name is resolved anew for every connection: the control plane may have moved.
        "type": "STATIC" if _is_ip(endpoint.host) else "STRICT_DNS",
        "connect_timeout": "5s",
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 10, "keepalive_interval": 5}
        },
        "typed_extension_protocol_options": _http2([_credential(endpoint.token_secret), _UPSTREAM_CODEC_FILTER]),
        "transport_socket": _extension(
            "envoy.transport_sockets.tls",
            _UPSTREAM_TLS,
            sni=endpoint.server_name,
            common_tls_context={
                # As a client Envoy offers 1.2 at most unless it is told otherwise.
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "combined_validation_context": {
                    "default_validation_context": {
                        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": endpoint.server_name}}]
                    },
                    "validation_context_sds_secret_config": _secret_source(XDS_CA_SECRET, endpoint.ca_secret),
                },
            },
        ),
        "load_assignment": _assignment({"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}),
    }


_UPSTREAM_CODEC_FILTER = _extension("envoy.filters.http.upstream_codec", _UPSTREAM_CODEC)


def _credential(secret: PurePath) -> dict[str, Any]:
    credential = _extension(
        "envoy.http.injected_credentials.generic",
        _GENERIC_CREDENTIAL,
        credential=_secret_source(XDS_TOKEN_SECRET, secret),
        header="authorization",
        header_value_prefix="Bearer ",
    )
    return _extension("envoy.filters.http.credential_injector", _INJECTOR, overwrite=True, credential=credential)


def _secret_source(name: str, file: PurePath) -> dict[str, Any]:
    return {
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "path_config_source": {"path": str(file), "watched_directory": {"path": str(file.parent)}},
        },
    }


def _http2(filters: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    options: dict[str, Any] = {"@type": _TYPE + _HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
    return {_HTTP_OPTIONS: {**options, "http_filters": list(filters)} if filters else options}


def _assignment(address: Mapping[str, Any]) -> dict[str, Any]:
    return {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _stats_config() -> dict[str, Any]:
    patterns = [{"safe_regex": {"regex": pattern}} for pattern in _STATISTICS]
    return {
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
        "histogram_bucket_settings": [{"match": {"safe_regex": {"regex": ".*"}}, "buckets": _BUCKETS_MS}],
    }


def _overload_manager(options: BootstrapOptions) -> dict[str, Any]:
    manager: dict[str, Any] = {"refresh_interval": "0.25s", "resource_monitors": []}
    if options.max_connections is not None:
        monitor = _extension(
            "envoy.resource_monitors.global_downstream_max_connections",
            _CONNECTION_MONITOR,
            max_active_downstream_connections=options.max_connections,
        )
        manager["resource_monitors"].append(monitor)
    if options.max_heap_bytes is not None:
        monitor = _extension(_HEAP, _HEAP_MONITOR, max_heap_size_bytes=options.max_heap_bytes)
        manager["resource_monitors"].append(monitor)
        manager["actions"] = [_at_heap(action, part) for action, part in _NEAR_THE_LIMIT]
    return manager


_HEAP = "envoy.resource_monitors.fixed_heap"
_NEAR_THE_LIMIT = (
    ("envoy.overload_actions.shrink_heap", 0.90),
    ("envoy.overload_actions.disable_http_keepalive", 0.95),
    ("envoy.overload_actions.stop_accepting_requests", 0.98),
)
"""What is done from which part of the heap on."""


def _at_heap(action: str, part: float) -> dict[str, Any]:
    return {"name": action, "triggers": [{"name": _HEAP, "threshold": {"value": part}}]}
