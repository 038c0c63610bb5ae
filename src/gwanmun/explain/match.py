"""Whether a match takes a request, and if not, the first thing that it would need."""

import re
from typing import assert_never

from gwanmun import ir
from gwanmun.explain.headers import Headers, value_of, values_of

_GRPC = re.compile(r"application/grpc(\+.*)?", re.DOTALL)
"""Envoy's reading of it: no parameters, and not gRPC-Web."""


def mismatch(match: ir.HttpMatch, method: str, path: str, headers: Headers, query: str) -> str:
    """Empty where all holds, else what does not, as "wants ..., has ...". `path` is normalized, `query` as it was sent."""
    if found := _path(match.path, path):
        return found
    if match.method and match.method != method:
        return f"wants method {match.method}, has {method}"
    for header in match.headers:
        if found := _value(f"header {header.name}", header.value, values_of(headers, header.name)):
            return found
    for wanted in match.query:
        if found := _value(f"query parameter {wanted.name}", wanted.value, _parameter(query, wanted.name)):
            return found
    if match.grpc and _GRPC.fullmatch(value_of(headers, "content-type")) is None:
        return "wants a gRPC request (content-type application/grpc)"
    return ""


def _parameter(query: str, name: str) -> tuple[str, ...]:
    """The first of that name counts, and neither name nor value is decoded."""
    pairs = (pair.partition("=") for pair in query.split("&"))
    return next(((value,) for key, _, value in pairs if key == name), ())


def _path(match: ir.PathMatch, path: str) -> str:
    match match:
        case ir.ExactPath(value):
            return "" if path == value else f"wants path {value}, has {path}"
        case ir.PrefixPath(value):
            prefix = value.rstrip("/")
            return "" if path == prefix or path.startswith(prefix + "/") else f"wants a path under {value}, has {path}"
        case ir.RegexPath(value):
            return "" if _matches(value, path) else f"wants a path matching {value}, has {path}"
        case _:
            assert_never(match)


def _value(what: str, match: ir.ValueMatch, values: tuple[str, ...]) -> str:
    """Any of the values will do."""
    wants = f"wants {what} {'=' if match.kind == 'exact' else '~'} {match.value}"
    if not values:
        return f"{wants}, which the request does not have"
    return "" if any(_holds(match, value) for value in values) else f"{wants}, has {' and '.join(values)}"


def _holds(match: ir.ValueMatch, value: str) -> bool:
    return value == match.value if match.kind == "exact" else _matches(match.value, value)


def _matches(pattern: str, text: str) -> bool:
    """Python's engine for an RE2 pattern: the same on what both know; what only RE2 knows counts as no match."""
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error:
        return False
