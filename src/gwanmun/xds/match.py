"""What a route matches, in Envoy's words."""

from typing import assert_never

from gwanmun.ir import ExactPath, HttpMatch, PathMatch, PrefixPath, RegexPath, ValueMatch
from gwanmun.xds.types import Fields


def route_match(match: HttpMatch, *, host_with_port: bool = False) -> Fields:
    """A RouteMatch. `host_with_port` takes only requests whose Host names a port."""
    headers = [{"name": header.name, "string_match": string_match(header.value)} for header in match.headers]
    if match.method is not None:
        headers.append({"name": ":method", "string_match": {"exact": match.method}})
    if host_with_port:
        headers.append({"name": ":authority", "string_match": {"safe_regex": {"regex": ".*:[0-9]+"}}})
    fields: Fields = {**path_match(match.path), "headers": headers}
    fields["query_parameters"] = [{"name": query.name, "string_match": string_match(query.value)} for query in match.query]
    if match.grpc:
        fields["grpc"] = {}
    return fields


def path_match(path: PathMatch) -> Fields:
    match path:
        case ExactPath(value):
            return {"path": value}
        case PrefixPath("/" | ""):
            return {"prefix": "/"}
        case PrefixPath(value):
            return {"path_separated_prefix": value}
        case RegexPath(value):
            return {"safe_regex": {"regex": value}}
        case _:
            assert_never(path)


def string_match(match: ValueMatch) -> Fields:
    match match.kind:
        case "exact":
            return {"exact": match.value}
        case "regex":
            return {"safe_regex": {"regex": match.value}}
        case _:
            assert_never(match.kind)
