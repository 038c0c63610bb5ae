"""Matches of HTTPRoute rules, and the order in which rules are tried."""

from gwanmun.ir import ExactPath, PathMatch, PrefixPath, RegexPath, Rule
from gwanmun.names import ObjectKey


def rule_order(rule: Rule, created: str, route: ObjectKey) -> tuple[object, ...]:
    """Sort key of a rule among all rules of a host: the first that matches serves, so the most specific comes first.

    The Gateway API's order: exact path, then (its choice left to us) regular expressions, then the longest prefix; a
    method; the most headers; the most query parameters; the oldest route (`created`, RFC 3339 in UTC, empty last);
    the first by namespace and name; the first rule; the first match.
    """
    match = rule.match
    return (
        *_path_order(match.path),
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
