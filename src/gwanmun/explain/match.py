"""Whether a match takes a request, and if not, the first thing that it would need."""

import re
from collections.abc import Mapping
from typing import assert_never

from gwanmun import ir


def mismatch(
    match: ir.HttpMatch, method: str, path: str, headers: Mapping[str, str], query: tuple[tuple[str, str], ...]
) -> str:
    """Empty where all holds, else what does not, as "wants ..., has ..."."""
    if found := _path(match.path, path):
        return found
    if match.method and match.method != method:
        return f"wants method {match.method}, has {method}"
    for header in match.headers:
        if found := _value(f"header {header.name}", header.value, headers.get(header.name)):
            return found
    parameters: dict[str, str] = {}
    for name, value in query:
        parameters.setdefault(name, value)  # the first of several counts
    for wanted in match.query:
        if found := _value(f"query parameter {wanted.name}", wanted.value, parameters.get(wanted.name)):
            return found
    if match.grpc and not headers.get("content-type", "").startswith("application/grpc"):
        return "wants a gRPC request (content-type application/grpc)"
    return ""


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


def _value(what: str, match: ir.ValueMatch, value: str | None) -> str:
    if value is None:
        return f"wants {what} {'=' if match.kind == 'exact' else '~'} {match.value}, which the request does not have"
    if match.kind == "exact":
        return "" if value == match.value else f"wants {what} = {match.value}, has {value}"
    return "" if _matches(match.value, value) else f"wants {what} ~ {match.value}, has {value}"


def _matches(pattern: str, text: str) -> bool:
    """Python's engine for an RE2 pattern: the same on what both know; what only RE2 knows counts as no match."""
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error:
        return False
