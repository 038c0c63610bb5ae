"""What is GRPCRoute's own: methods as paths. Its filters are a subset of HTTPRoute's; its rules go the same way."""

import re

from gwanmun.api.grpcroute import GRPCMethodMatch, GRPCRouteFilter, GRPCRouteMatch
from gwanmun.api.httproute import HTTPHeaderMatch, HTTPRouteFilter
from gwanmun.ir import ExactPath, HttpMatch, PathMatch, PrefixPath, RegexPath
from gwanmun.resolve.match import header_matches
from gwanmun.resolve.regex import regex_problem

ANY_NAME = "[^/]+"
"""One element of a gRPC path, `/{service}/{method}`, as RE2."""


def grpc_match(match: GRPCRouteMatch, where: str) -> HttpMatch | str:
    """One match of a GRPCRoute rule, or what is wrong with it; `where` is the field's path, for the message."""
    path = _path(match.method, f"{where}.method") if match.method is not None else PrefixPath("/")
    if isinstance(path, str):
        return path
    headers = header_matches(
        (HTTPHeaderMatch(header.name, header.value, header.type) for header in match.headers), f"{where}.headers"
    )
    return headers if isinstance(headers, str) else HttpMatch(path, headers=headers, grpc=True)


def grpc_filter(entry: GRPCRouteFilter) -> HTTPRouteFilter:
    """The same filter as HTTPRoute has it."""
    return HTTPRouteFilter(
        type=entry.type,
        request_header_modifier=entry.request_header_modifier,
        response_header_modifier=entry.response_header_modifier,
        request_mirror=entry.request_mirror,
        extension_ref=entry.extension_ref,
    )


def _path(method: GRPCMethodMatch, where: str) -> PathMatch | str:
    match method.type:
        case "Exact":
            return _exact(method.service or "", method.method or "")
        case "RegularExpression":
            return _regex(method, where)
        case kind:
            return f'{where}.type: "{kind}" is not one of Exact and RegularExpression'


def _exact(service: str, method: str) -> PathMatch:
    if service and method:
        return ExactPath(f"/{service}/{method}")
    if service:
        return PrefixPath(f"/{service}")
    return RegexPath(f"/{ANY_NAME}/{re.escape(method)}") if method else PrefixPath("/")


def _regex(method: GRPCMethodMatch, where: str) -> PathMatch | str:
    for field, pattern in (("service", method.service), ("method", method.method)):
        problem = regex_problem(pattern) if pattern else None
        if problem is not None:
            return f'{where}.{field}: "{pattern}" is not RE2: {problem}'
    if not method.service and not method.method:
        return PrefixPath("/")
    whole = f"/(?:{method.service or ANY_NAME})/(?:{method.method or ANY_NAME})"
    problem = regex_problem(whole)  # each may be small enough alone, and both together too large
    return RegexPath(whole) if problem is None else f'{where}: "{whole}" is not RE2: {problem}'
