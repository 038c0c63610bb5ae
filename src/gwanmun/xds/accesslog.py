"""The access log: one line of JSON for each request or connection."""

from typing import Final

from gwanmun.ir import InferenceSettings
from gwanmun.xds.names import METADATA
from gwanmun.xds.types import Fields, extension

_COMMON: Final = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "upstream": "%UPSTREAM_HOST%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
}
_CONNECTION: Final = {
    **_COMMON,
    "listener": "%FILTER_CHAIN_NAME%",
    "server_name": "%REQUESTED_SERVER_NAME%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
_REQUEST: Final = {
    **_COMMON,
    "request_id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "authority": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",  # as it came, without the query: keys may be in it
    "route": "%ROUTE_NAME%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "first_byte_ms": "%RESPONSE_DURATION%",
}
"""`first_byte_ms` is from the request's start until the answer began. `route` is a name of ``names.match``, `cluster` one of
``names.cluster``. Credentials are in none of them. Each field costs a request 0.2 us, so there are no more than are used."""


def logged_fields(inference: InferenceSettings) -> frozenset[str]:
    """Every field that a line may have."""
    return frozenset((*_REQUEST, *_asked(inference), *_CONNECTION))


def request_log(path: str | None, inference: InferenceSettings | None) -> list[Fields]:
    """The log of an HTTP listener; none where `path` is None. The model is in it where rules look at it."""
    if path is None:
        return []
    if inference is None:
        return [_file(path, _REQUEST)]
    return [_file(path, _REQUEST | _asked(inference))]


def _asked(inference: InferenceSettings) -> dict[str, str]:
    return {
        "model": f"%REQ({inference.model_header})%",
        "body_problem": f"%DYNAMIC_METADATA({METADATA}:body_problem)%",
    }


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
