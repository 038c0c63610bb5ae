"""Matches of HTTPRoute rules, which of them are traffic of model APIs, and the order in which rules are tried."""

from collections.abc import Iterable

from gwanmun.api.httproute import HTTPHeaderMatch, HTTPPathMatch, HTTPQueryParamMatch, HTTPRouteMatch
from gwanmun.ir import ExactPath, HeaderMatch, HttpMatch, PathMatch, PrefixPath, QueryMatch, RegexPath, Rule, ValueMatch
from gwanmun.names import ObjectKey
from gwanmun.resolve.regex import regex_problem

MODEL_API_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/responses",
    "/v1/audio",
    "/v1/messages",
    "/generate",
    "/generate_stream",
)
"""Paths of model servers' APIs (OpenAI's, Anthropic's, TGI's own); what is below them counts as well."""
_BELOW_MODEL_API_PATHS = tuple(f"{path}/" for path in MODEL_API_PATHS)

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")


def http_match(match: HTTPRouteMatch, where: str) -> HttpMatch | str:
    """One match of an HTTPRoute rule, or what is wrong with it; `where` is the field's path, for the message.

    Of several conditions on one header (or one query parameter) the first counts, as the Gateway API asks.
    """
    path = _path(match.path, f"{where}.path")
    if isinstance(path, str):
        return path
    headers = header_matches(match.headers, f"{where}.headers")
    if isinstance(headers, str):
        return headers
    query = _query_matches(match.query_params, f"{where}.queryParams")
    if isinstance(query, str):
        return query
    if match.method is not None and match.method not in METHODS:
        return f'{where}.method: "{match.method}" is not one of {", ".join(METHODS)}'
    return HttpMatch(path, match.method, headers, query)


def header_matches(headers: Iterable[HTTPHeaderMatch], where: str) -> tuple[HeaderMatch, ...] | str:
    """Conditions on headers sorted by name, or what is wrong with them."""
    found: dict[str, HeaderMatch] = {}
    for index, header in enumerate(headers):
        name = header.name.lower()
        if name in found:
            continue
        value = value_match(header.type, header.value, f"{where}[{index}]")
        if isinstance(value, str):
            return value
        found[name] = HeaderMatch(name, value)
    return tuple(found[name] for name in sorted(found))


def value_match(kind: str, value: str, where: str) -> ValueMatch | str:
    """How one value is compared, or what is wrong with the comparison."""
    match kind:
        case "Exact":
            return ValueMatch(value)
        case "RegularExpression":
            problem = regex_problem(value)
            return ValueMatch(value, "regex") if problem is None else f'{where}.value: "{value}" is not RE2: {problem}'
        case _:
            return f'{where}.type: "{kind}" is not one of Exact and RegularExpression'


def is_model_path(path: PathMatch) -> bool:
    """Whether the path is one of a model API's, at or below one of `MODEL_API_PATHS`, or all of `/v1`."""
    match path:
        case ExactPath(value) | PrefixPath(value):
            return path == PrefixPath("/v1") or value in MODEL_API_PATHS or value.startswith(_BELOW_MODEL_API_PATHS)
        case RegexPath():
            return False


def rule_order(rule: Rule, created: str, route: ObjectKey) -> tuple[object, ...]:
    """Sort key of a rule among all rules of a host: the first that matches serves, so the most specific comes first.

    The Gateway API's order for HTTPRoute: exact path, then (its place is left to us) regular expressions, then the longest
    prefix; a method; the most headers; the most query parameters. For GRPCRoute: the longest service, the longest method,
    the most headers. Then for both: the oldest route (`created`, RFC 3339 in UTC, empty last); the first by namespace and
    name; the first rule; the first match. The two kinds never share a host.
    """
    match = rule.match
    return (
        *(_grpc_order(match.path) if match.grpc else _path_order(match.path)),
        match.method is None,
        -len(match.headers),
        -len(match.query),
        created == "",
        created,
        route.namespace,
        route.name,
        rule.key.rule.rule,
        rule.key.match,
    )


def _path_order(path: PathMatch) -> tuple[int, int]:
    match path:
        case ExactPath(value):
            return 0, -len(value)
        case RegexPath(value):
            return 1, -len(value)
        case PrefixPath(value):
            return 2, -len(value)


def _grpc_order(path: PathMatch) -> tuple[int, int]:
    """Service and method, then a service (a prefix), then a method of any service and expressions, then everything."""
    match path:
        case ExactPath(value):
            return 0, -len(value)
        case PrefixPath("/"):
            return 3, 0
        case PrefixPath(value):
            return 1, -len(value)
        case RegexPath(value):
            return 2, -len(value)


def _path(match: HTTPPathMatch, where: str) -> PathMatch | str:
    value = match.value
    if match.type == "RegularExpression":
        problem = regex_problem(value)
        return RegexPath(value) if problem is None else f'{where}.value: "{value}" is not RE2: {problem}'
    if not value.startswith("/"):
        return f'{where}.value: "{value}" does not begin with "/"'
    match match.type:
        case "Exact":
            return ExactPath(value)
        case "PathPrefix":
            return PrefixPath(value.rstrip("/") or "/")
        case kind:
            return f'{where}.type: "{kind}" is not one of Exact, PathPrefix and RegularExpression'


def _query_matches(params: Iterable[HTTPQueryParamMatch], where: str) -> tuple[QueryMatch, ...] | str:
    found: dict[str, QueryMatch] = {}
    for index, param in enumerate(params):
        if param.name in found:
            continue
        value = value_match(param.type, param.value, f"{where}[{index}]")
        if isinstance(value, str):
            return value
        found[param.name] = QueryMatch(param.name, value)
    return tuple(found[name] for name in sorted(found))
