"""Holds a request until its body is whole, on routes that are served without their endpoint picker if need be.

Where a picker fails in the middle of a body, Envoy hands on what it has kept of it, the router keeps that for a retry, and the
stream goes on with what the router keeps: the backend gets it twice. Not so where the body's end is there. Besides, a body in
pieces stops at the connection's limit, at which the picker has not read it all. Pickers answer when they have.
"""

from typing import Any, Final

from gwanmun.protos import any_of, pb
from gwanmun.xds.types import Fields, extension, number

WHOLE_BODY: Final = "gwanmun.whole_body"


def whole_body(max_request_bytes: int) -> Fields:
    """Does nothing but on routes that say ``hold_body``. Larger bodies are answered with 413."""
    limit = number(max_request_bytes)
    buffer = extension("buffer", "envoy.extensions.filters.http.buffer.v3.Buffer", max_request_bytes=limit)
    return extension(
        WHOLE_BODY,
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        extension_config=buffer,
        xds_matcher={"on_no_match": _pass()},
    )


def hold_body() -> Any:
    """The settings of one route, packed for `typed_per_filter_config`. A WebSocket has no end that could be waited for."""
    upgrade = {
        "input": extension("upgrade", "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name="upgrade"),
        "value_match": {"exact": "websocket", "ignore_case": True},
    }
    matcher = {"matcher_list": {"matchers": [{"predicate": {"single_predicate": upgrade}, "on_match": _pass()}]}}
    return any_of(pb("envoy.extensions.common.matching.v3.ExtensionWithMatcherPerRoute")(xds_matcher=matcher))


def _pass() -> Fields:
    return {"action": extension("pass", "envoy.extensions.filters.common.matcher.action.v3.SkipFilter")}
