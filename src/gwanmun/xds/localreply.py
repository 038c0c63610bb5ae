"""Answers that Envoy gives itself: in OpenAI's shape on model APIs, in plain words elsewhere, and without internals on both.

Traffic of a model API is known by the route it took (metadata, looked at with CEL: only when there is an error, so it costs
an ordinary request nothing), by what the native module saw in the body (dynamic metadata), or by the model's header.
Errors of backends pass untouched.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from gwanmun.ir import InferenceSettings
from gwanmun.xds.names import METADATA
from gwanmun.xds.types import Fields, extension

_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"
_PATH: Final = "%PATH(NQ:ORIG_OR_PATH):256%"
"""As it came, without the query: keys may be in it."""


@dataclass(frozen=True, slots=True)
class _Reply:
    """One kind of failure: when (response flags, or a status), and what is said. `plain` is what others than model APIs are
    told; None leaves Envoy's own words, which are harmless there."""

    message: str
    type: str
    code: str
    flags: tuple[str, ...] = ()
    status: int = 0
    at_least: int = 0
    retry_after: int = 0
    plain: str | None = None


_REPLIES: Final = (
    # Envoy's word for a request that is not whole yet: its flag would blame the backend.
    _Reply(
        "The request took too long to arrive.",
        _INVALID,
        "request_timeout",
        status=408,
        plain="The request took too long to arrive.\n",
    ),
    _Reply(
        "All backends of this route are at their limit of concurrent requests. Try again shortly.",
        "overloaded_error",
        "backend_overloaded",
        flags=("UO",),
        retry_after=2,
        plain="The backends are overloaded.\n",
    ),
    _Reply(
        "No backend of this route is ready at the moment.",
        _SERVER,
        "no_backend_available",
        flags=("UH",),
        retry_after=5,
        plain="No backend is available.\n",
    ),
    _Reply(
        "This route's backend is not set up correctly.",
        _SERVER,
        "backend_not_found",
        flags=("NC",),
        plain="The backend is not configured.\n",
    ),
    _Reply(
        "The backend did not answer in time.",
        "timeout_error",
        "backend_timeout",
        flags=("UT", "SI", "DT", "UMSDR"),
        plain="The backend did not answer in time.\n",
    ),
    _Reply(
        "The backend could not be reached, or ended the connection.",
        _SERVER,
        "backend_unreachable",
        flags=("UF", "UC", "UR", "LR", "URX", "UPE", "DF"),
        retry_after=1,
        plain="The backend could not be reached.\n",
    ),
    _Reply(
        "The gateway has too much to do. Try again shortly.", "overloaded_error", "overloaded", flags=("OM",), retry_after=2
    ),
    # By status: a rate limit's flag is set too late to be matched here.
    _Reply("The request's credentials are missing or not valid.", "authentication_error", "invalid_api_key", status=401),
    _Reply("This is not allowed with these credentials.", "permission_error", "forbidden", status=403),
    _Reply("There is no such path here.", _INVALID, "not_found", status=404),
    _Reply("The request is too large.", _INVALID, "request_too_large", status=413),
    _Reply("This kind of request body is not accepted.", _INVALID, "unsupported_media_type", status=415),
    _Reply("This host is not served on this connection.", _INVALID, "misdirected_request", status=421),
    _Reply("Too many requests. Try again later.", "rate_limit_error", "rate_limit_exceeded", status=429, retry_after=1),
    _Reply("The gateway could not serve this request.", _SERVER, "internal_error", at_least=500),
    _Reply("The request was not accepted.", _INVALID, "bad_request", at_least=400),
)
"""First match wins. But for 408, of a request that failed on more than one count the flag says more than the status."""


def local_reply_config(inference: InferenceSettings | None) -> Fields:
    """`inference` None: no rule of the listener looks at the model."""
    unrouted = [] if inference is None else _unrouted(inference)
    ai = [_mapper(_and(_of_a_model_api(), _when(reply)), reply, _openai(reply)) for reply in _REPLIES]
    plain = [_mapper(_when(reply), reply, body=reply.plain) for reply in _REPLIES if reply.plain is not None]
    return {"mappers": [_as_the_module_says(), *unrouted, *ai, *plain]}


def _unrouted(inference: InferenceSettings) -> list[Fields]:
    """No route: because the body could not be read, or with a model. What is said of the model has to hold for one that is
    served elsewhere, too: nothing here knows the models, and a path or method can be what is wrong."""
    header = inference.model_header
    unreadable = _error(f"%DYNAMIC_METADATA({METADATA}:body_problem)%", _INVALID, "invalid_body", param="model")
    unknown = _error(
        f"No route for `%REQ(:METHOD)% {_PATH}` with the model `%REQ({header}):256%`: no such model is served here, or not to"
        f" such a request. The model is taken from the request's body, or from the header {header}.",
        _INVALID,
        "model_not_found",
        param="model",
    )
    return [
        {
            "filter": _and(_flags("NR"), _metadata("body_problem", {"present_match": True})),
            "status_code": {"value": 400},
            "body_format_override": {"json_format": unreadable},
        },
        {
            "filter": _and(_flags("NR"), {"header_filter": {"header": {"name": header, "present_match": True}}}),
            "status_code": {"value": 404},
            "body_format_override": {"json_format": unknown},
        },
    ]


def _mapper(when: Fields, reply: _Reply, body_format: Fields | None = None, *, body: str | None = None) -> Fields:
    fields: Fields = {"filter": when}
    if body_format is not None:
        fields["body_format_override"] = {"json_format": body_format}
    if body is not None:
        fields["body"] = {"inline_string": body}
    if reply.retry_after:
        value = {"key": "retry-after", "value": str(reply.retry_after)}
        fields["headers_to_add"] = [{"header": value, "append_action": "ADD_IF_ABSENT"}]
    return fields


def _openai(reply: _Reply) -> Fields:
    return _error(reply.message, reply.type, reply.code)


def _error(message: str, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


# When


def _when(reply: _Reply) -> Fields:
    if reply.flags:
        return _flags(*reply.flags)
    if reply.status:
        return _status("EQ", reply.status)
    return _status("GE", reply.at_least)


def _flags(*flags: str) -> Fields:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(op: str, status: int) -> Fields:
    value = {"default_value": status, "runtime_key": "gwanmun.local_reply_status"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}


def _metadata(key: str, value: Fields) -> Fields:
    matcher = {"filter": METADATA, "path": [{"key": key}], "value": value}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": {"value": False}}}


def _and(*filters: Fields) -> Fields:
    return {"and_filter": {"filters": list(filters)}}


def _cel(expression: str) -> Fields:
    full_name = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": extension("envoy.access_loggers.extension_filters.cel", full_name, expression=expression)}


# Made at the first use: they need Envoy's own descriptors, and a command that finds no Envoy has to be able to say so.


@cache
def _of_a_model_api() -> Fields:
    return {
        "or_filter": {
            "filters": [
                _cel(f"xds.route_metadata.filter_metadata['{METADATA}']['ai']"),
                _metadata("ai", {"bool_match": True}),
            ]
        }
    }


@cache
def _as_the_module_says() -> Fields:
    """The native module's own answers are complete: they name the limit, or the encoding."""
    return {
        "filter": _cel(f"response.code_details.startsWith('{METADATA}_')"),
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }
