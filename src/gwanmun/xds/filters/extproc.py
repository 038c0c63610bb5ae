"""Asks a pool's endpoint picker where a request is to go, by the Gateway API Inference Extension's protocol (ext_proc).

In a listener the filter does nothing by itself; a route (or one of its weighted clusters) says whom to ask. It cannot be
disabled there instead, which would cost other routes even less: Envoy decides that before the body, and so the model, is
known. Deliberately absent: what is done with the answer (``picker``).
"""

from datetime import timedelta
from typing import Any, Final

from gwanmun.ir import Picker
from gwanmun.protos import any_of, pb
from gwanmun.xds import names
from gwanmun.xds.picker import NAMESPACE
from gwanmun.xds.types import Fields, extension, no, number, yes

EXTPROC: Final = "envoy.filters.http.ext_proc"
_PACKAGE: Final = "envoy.extensions.filters.http.ext_proc.v3"

_PATIENCE: Final = timedelta(seconds=5)
"""How long a picker may take for its answer, where a request goes on without it."""

_MOST_PATIENCE: Final = timedelta(hours=1)
"""How long it may ask to be given, if it holds requests until a replica is free."""

_IDLE: Final[Fields] = {
    "request_header_mode": "SKIP",
    "response_header_mode": "SKIP",
    "request_body_mode": "NONE",
    "response_body_mode": "NONE",
    "request_trailer_mode": "SKIP",
    "response_trailer_mode": "SKIP",
}

_CLOSED: Final[Fields] = {
    "request_header_mode": "SEND",
    "response_header_mode": "SEND",
    "request_body_mode": "FULL_DUPLEX_STREAMED",
    "response_body_mode": "FULL_DUPLEX_STREAMED",  # pieces of a stream are passed on one by one
    "request_trailer_mode": "SEND",
    "response_trailer_mode": "SEND",
}
"""As the protocol has it: bodies go to the picker and come back from it. It reads the prompt from the request and the tokens
used from the answer. Envoy keeps nothing, so that a request whose picker fails is lost, and waits for it without a limit."""

_OPEN: Final[Fields] = {
    "request_header_mode": "SEND",
    "response_header_mode": "SEND",
    "request_body_mode": "STREAMED",
    "response_body_mode": "NONE",
    "request_trailer_mode": "SKIP",
    "response_trailer_mode": "SKIP",
}
"""Where a request has to be served without the picker, Envoy keeps the body and gives the picker a copy. A picker that sends
it back all the same has said by then where to; its stream is ended there, and it is not told of the answer."""


def extproc() -> Fields:
    return extension(
        EXTPROC,
        f"{_PACKAGE}.ExternalProcessor",
        grpc_service=_service(names.UNRESOLVED),  # never asked
        processing_mode=_IDLE,
        message_timeout=_PATIENCE,
        max_message_timeout=_MOST_PATIENCE,
        send_body_without_waiting_for_header_response=True,  # pickers answer when they have read the body
        status_on_error={"code": "ServiceUnavailable"},
        allow_mode_override=True,  # a picker that does not look at answers may say so
        # Another route would have another picker; besides, the choice between weighted clusters would be made anew.
        route_cache_action="RETAIN",
        metadata_options={
            "forwarding_namespaces": {"untyped": [NAMESPACE]},
            "receiving_namespaces": {"untyped": [NAMESPACE]},
        },
    )


def ask_picker(picker: Picker) -> Any:
    """The settings of one route, packed for `typed_per_filter_config`."""
    return any_of(
        pb(f"{_PACKAGE}.ExtProcPerRoute")(
            overrides={
                "grpc_service": _service(names.cluster(picker.target)),
                "processing_mode": _OPEN if picker.fail_open else _CLOSED,
                "failure_mode_allow": yes() if picker.fail_open else no(),
            }
        )
    )


def _service(cluster: str) -> Fields:
    retry = {
        "retry_on": "connect-failure,refused-stream,reset-before-request",  # one of several replicas may be on its way out
        "num_retries": number(2),
        "retry_back_off": {"base_interval": timedelta(milliseconds=10), "max_interval": timedelta(milliseconds=50)},
    }
    return {"envoy_grpc": {"cluster_name": cluster}, "retry_policy": retry}
