"""Filters and session settings that HTTPRoute and GRPCRoute share."""

import msgspec

from gwanmun.api.meta import ApiStruct
from gwanmun.api.references import BackendObjectReference


class HTTPHeader(ApiStruct, frozen=True):
    """A header to set or to add."""

    name: str
    value: str


class HTTPHeaderFilter(ApiStruct, frozen=True):
    """Header changes; each header name at most once in each of the three lists."""

    set_: tuple[HTTPHeader, ...] = msgspec.field(default=(), name="set")
    add: tuple[HTTPHeader, ...] = ()
    remove: tuple[str, ...] = ()


class Fraction(ApiStruct, frozen=True):
    """A share such as 1 of 1000."""

    numerator: int
    denominator: int = 100


class HTTPRequestMirrorFilter(ApiStruct, frozen=True):
    """A copy of requests to another backend: all, `percent` of 100, or `fraction` of them."""

    backend_ref: BackendObjectReference
    percent: int | None = None
    fraction: Fraction | None = None


class CookieConfig(ApiStruct, frozen=True):
    """Cookie of a persistent session. `lifetime_type` is Session or Permanent."""

    lifetime_type: str = "Session"


class SessionPersistence(ApiStruct, frozen=True):
    """Keeps a client on its backend endpoint. `type` is Cookie or Header; the timeout is a Gateway API duration."""

    session_name: str | None = None
    absolute_timeout: str | None = None
    type: str = "Cookie"
    cookie_config: CookieConfig | None = None
