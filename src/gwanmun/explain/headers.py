"""Request headers as Envoy keeps them: a list, in which a name may stand several times."""

from collections.abc import Iterable
from typing import Final

Headers = tuple[tuple[str, str], ...]
"""In the order in which they were sent; names are in lower case."""

_JOINED: Final = frozenset([
    "accept", "accept-encoding", "access-control-request-headers", "access-control-request-method",
    "access-control-request-private-network", "authorization", "cache-control", "content-encoding", "content-type",
    "expect", "grpc-accept-encoding", "grpc-timeout", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "keep-alive", "origin", "pragma", "proxy-connection", "proxy-status", "referer", "te", "upgrade",
    "user-agent", "via", "x-client-trace-id", "x-forwarded-client-cert", "x-forwarded-host", "x-forwarded-port",
    "x-request-id",
])  # fmt: skip  # a table: one value a line would take a page
"""Headers that Envoy has a place of its own for (its "inline" ones): where one is repeated, its values become one with commas.
Found by asking Envoy 1.40; those that it sets or removes itself are not among them."""


def values_of(headers: Iterable[tuple[str, str]], name: str) -> tuple[str, ...]:
    """The values of a header as routes compare them."""
    found = tuple(value for key, value in headers if key == name)
    return (",".join(found),) if found and name in _JOINED else found


def value_of(headers: Iterable[tuple[str, str]], name: str) -> str:
    """Its first value; empty where there is none."""
    return next(iter(values_of(headers, name)), "")


def with_value(headers: Headers, name: str, value: str) -> Headers:
    """The headers with this value of that one alone."""
    return (*(one for one in headers if one[0] != name), (name, value))
