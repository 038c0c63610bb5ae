"""The access log: one line of JSON for each request or connection."""

from typing import Final

from gwanmun.xds.names import METADATA
from gwanmun.xds.types import Fields, extension

_CONNECTION: Final = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "listener": "%FILTER_CHAIN_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "upstream": "%UPSTREAM_HOST%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "server_name": "%REQUESTED_SERVER_NAME%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
_REQUEST: Final = {
    **_CONNECTION,
    "request_id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "authority": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "protocol": "%PROTOCOL%",
    "model": f"%DYNAMIC_METADATA({METADATA}:model)%",
    "stream": f"%DYNAMIC_METADATA({METADATA}:stream)%",
    "body_problem": f"%DYNAMIC_METADATA({METADATA}:body_problem)%",
    "route": "%ROUTE_NAME%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "request_ms": "%REQUEST_DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
}
"""`request_ms` is until the request had come in whole, `first_byte_ms` until the answer began, both from its start. `route` is
a name of ``names.match``, `cluster` one of ``names.cluster``. Credentials are in none:
a path is without its query, where API keys may be."""


def request_log(path: str | None) -> list[Fields]:
    """The log of an HTTP listener; none where `path` is None."""
    return [] if path is None else [_file(path, _REQUEST)]


def connection_log(path: str | None) -> list[Fields]:
    """The log of a TCP listener."""
    return [] if path is None else [_file(path, _CONNECTION)]


def _file(path: str, fields: dict[str, str]) -> Fields:
    return extension(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=path,
        log_format={"json_format": fields},
    )
