"""The HTTP connection manager: what happens on a connection before routes and filters decide.

Every default that matters is written down here, ours or Envoy's.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from gwanmun.ir import MAX_REQUEST_BYTES, InferenceSettings
from gwanmun.protos import any_of, pb
from gwanmun.xds import names
from gwanmun.xds.accesslog import counts_requests, request_log
from gwanmun.xds.filters import FilterOptions, http_filters
from gwanmun.xds.localreply import local_reply_config
from gwanmun.xds.picker import PICKED
from gwanmun.xds.types import ADS, Fields, extension, no, number, yes

_REQUEST_ID: Final = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
_HEADERS_KB: Final = 96
_ROUTE_UNKNOWN: Final = timedelta(seconds=30)
"""How long a client that has begun a request has for its headers, and between two parts of a body that is read for its model.
Routes have limits of their own. One timer does for both: another for headers alone would cost each request as much again."""

_DELAYED_CLOSE: Final = timedelta(milliseconds=100)
"""How long a connection that we end stays half open, for the client to read the rest. Envoy's own 1 s is how much later an
HTTP/1 client would learn that a stream was cut; far less and an early 413 could be lost to a reset."""

_FAREWELL: Final = timedelta(seconds=1)
"""Between the notice that a connection is about to end and its end, for requests that are on their way. Envoy waits 5 s by
itself, on HTTP/1 too, where nobody is told: an idle timeout of 1 s would take 6."""

_MAX_STREAMS: Final = 256
_STREAM_WINDOW: Final = 1024 * 1024
_CONNECTION_WINDOW: Final = 16 * 1024 * 1024
"""HTTP/2 windows: a long prompt goes through in one round trip, and one stream cannot fill the connection's."""


@dataclass(frozen=True, slots=True)
class HttpChain:
    """What is served on connections of one kind. `table` names the routes; `shards` is how many tables they are cut into,
    0 for one. `cors` tells whether any of them asks for it, `picked` whether any asks a picker; `max_request_bytes` is the
    largest body that is held for one."""

    table: str
    inference: InferenceSettings | None = None
    shards: int = 0
    cors: bool = False
    picked: bool = False
    max_request_bytes: int = MAX_REQUEST_BYTES


def connection_manager(
    chain: HttpChain,
    *,
    stat_prefix: str,
    idle_timeout: timedelta | None,
    module_path: str | None,
    access_log: str | None,
) -> Fields:
    filters = FilterOptions(
        module_path,
        chain.inference,
        chain.shards,
        chain.cors,
        chain.picked,
        chain.max_request_bytes,
        counted=counts_requests(access_log, module_path),
    )
    return extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=stat_prefix,
        codec_type="AUTO",  # without TLS too: HTTP/2 with prior knowledge (gRPC) beside HTTP/1.1
        early_header_mutation_extensions=_early(chain),
        **(_scoped(chain) if chain.shards else {"rds": {"route_config_name": chain.table, "config_source": ADS}}),
        http_filters=http_filters(filters),
        local_reply_config=local_reply_config(chain.inference),
        access_log=request_log(access_log, chain.inference, module_path),
        upgrade_configs=[{"upgrade_type": "websocket"}],
        **_LIMITS,
        common_http_protocol_options={
            **({"idle_timeout": idle_timeout} if idle_timeout is not None else {}),
            "headers_with_underscores_action": "ALLOW",
        },
        http2_protocol_options={
            "max_concurrent_streams": number(_MAX_STREAMS),
            "initial_stream_window_size": number(_STREAM_WINDOW),
            "initial_connection_window_size": number(_CONNECTION_WINDOW),
        },
        request_id_extension={"typed_config": any_of(pb(_REQUEST_ID)(pack_trace_reason=no()))},
        **_IDENTITY,
        **_PATHS,
    )


_LIMITS: Final[Fields] = {
    "stream_idle_timeout": _ROUTE_UNKNOWN,
    "delayed_close_timeout": _DELAYED_CLOSE,
    "drain_timeout": _FAREWELL,
    "max_request_headers_kb": number(_HEADERS_KB),
}
_IDENTITY: Final[Fields] = {
    # We are the edge: the connection says who the client is, not a header. Without an internal_address_config nobody is so
    # internal that x-envoy-* counts; one without ranges would make every private address internal.
    "use_remote_address": yes(),
    # `Server` is the backend's to set.
    "server_header_transformation": "PASS_THROUGH",
    # A client may bring its own id, and gets it back: `gwanmun explain <id>`. It stays as it is (no trace bits).
    "generate_request_id": yes(),
    "preserve_external_request_id": True,
    "always_set_request_id_in_response": True,
}
_PATHS: Final[Fields] = {
    # `/a/../b` must not pass a rule for `/a`; beyond that a path belongs to the backend.
    "normalize_path": yes(),
    "merge_slashes": False,
    "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    "strip_trailing_host_dot": True,  # `example.com.` is `example.com`
}


def _early(chain: HttpChain) -> list[Fields]:
    """Changes to headers before anything else looks at them."""
    mutations: list[Fields] = []
    if chain.shards:
        table = {"header": {"key": names.TABLE_HEADER, "value": chain.table.replace("%", "%%")}}
        mutations.append({"append": {**table, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}})
    if chain.picked:
        mutations.append({"remove": PICKED})  # clients do not pick
    if not mutations:
        return []
    message = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return [extension("envoy.http.early_header_mutation.header_mutation", message, mutations=mutations)]


def _scoped(chain: HttpChain) -> dict[str, Any]:
    """Routes by shard. Envoy gives every listener all the scopes there are, so their keys begin with the listener's table."""
    keys = [names.TABLE_HEADER, names.SHARD_HEADER]
    return {
        "scoped_routes": {
            "name": chain.table,
            "scope_key_builder": {"fragments": [{"header_value_extractor": {"name": key, "index": 0}} for key in keys]},
            "rds_config_source": ADS,
            "scoped_rds": {"scoped_rds_config_source": ADS},
        },
    }
