"""The access log: one line of JSON for each request or connection, by the native module where it is there.

Envoy's own formatter writes the same lines, at twice the price.
"""

import json
from typing import Any, Final

from gwanmun.ir import InferenceSettings
from gwanmun.protos import any_of, pb
from gwanmun.xds.module import module
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
``names.cluster``. Credentials are in none of them. Each field costs a request something, so there are no more than are used.
"""


def logged_fields(inference: InferenceSettings) -> frozenset[str]:
    """Every field that a line may have."""
    return frozenset((*_REQUEST, *_asked(inference), *_CONNECTION))


def request_log(path: str | None, inference: InferenceSettings | None, module_path: str | None) -> list[Fields]:
    """The log of an HTTP listener; none where `path` is None. The model is in it where rules look at it."""
    if path is None:
        return []
    if module_path is not None:
        return [_module(module_path, "requests", path=path, model_header=inference.model_header if inference else "")]
    return [_file(path, _REQUEST | (_asked(inference) if inference else {}))]


def _asked(inference: InferenceSettings) -> dict[str, str]:
    return {
        "model": f"%REQ({inference.model_header})%",
        "body_problem": f"%DYNAMIC_METADATA({METADATA}:body_problem)%",
    }


def connection_log(path: str | None, chain: str, module_path: str | None) -> list[Fields]:
    """The log of a TCP listener, whose filter chain is `chain`."""
    if path is None:
        return []
    # Not two writers to one file: they would break each other's lines.
    return [_file(path, _CONNECTION) if module_path is None else _module(module_path, "connections", path=path, listener=chain)]


def counts_requests(path: str | None, module_path: str | None) -> bool:
    """Whether the log counts requests by backend and status, so that Envoy need not."""
    return path is not None and module_path is not None


def _module(module_path: str, name: str, **config: str) -> Fields:
    value: Any = pb("google.protobuf.StringValue")(value=json.dumps(config, sort_keys=True))
    return extension(
        "gwanmun.access_log",
        "envoy.extensions.access_loggers.dynamic_modules.v3.DynamicModuleAccessLog",
        dynamic_module_config=module(module_path),
        logger_name=name,
        logger_config=any_of(value),
    )


def _file(path: str, fields: dict[str, str]) -> Fields:
    return extension(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=path,
        log_format={"json_format": fields},
    )
