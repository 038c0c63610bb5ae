"""CORS: preflights answered here, and the headers on answers to browsers. Rules say what they allow on their routes."""

import re
from typing import Any, Final

from gwanmun.ir import Cors
from gwanmun.protos import any_of, pb
from gwanmun.xds.types import Fields, extension, no, yes

NAME: Final = "envoy.filters.http.cors"
_ANY_METHOD: Final = "GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH"


def cors() -> Fields:
    return extension(NAME, "envoy.extensions.filters.http.cors.v3.Cors")


def cors_policy(cors: Cors) -> Any:
    """The policy of one route, packed for `typed_per_filter_config`."""
    return any_of(
        pb("envoy.extensions.filters.http.cors.v3.CorsPolicy")(
            allow_origin_string_match=[_origin(origin) for origin in cors.allow_origins],
            allow_methods=", ".join(cors.allow_methods),
            allow_headers=", ".join(cors.allow_headers),
            expose_headers=", ".join(cors.expose_headers),
            max_age=str(int(cors.max_age.total_seconds())),
            allow_credentials=yes() if cors.allow_credentials else no(),
            # A preflight is a question to the gateway; the backend knows nothing of these rules.
            forward_not_matching_preflights=no(),
        )
    )


def _origin(origin: str) -> Fields:
    if origin == "*":
        return {"safe_regex": {"regex": ".*"}}
    if "*" in origin:
        return {"safe_regex": {"regex": "[^/:@]+".join(re.escape(text) for text in origin.split("*"))}}
    return {"exact": origin}
