"""What a violated JSON Schema means, in words: the value, and what would be accepted in its place."""

from collections.abc import Iterator
from typing import Any

from gwanmun.api.problem import FieldPath, FieldProblem, any_of, show

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_PATTERNS = {
    rf"^{_LABEL}$": 'a name of a-z, 0-9 and "-" that begins and ends with a letter or digit',
    rf"^{_SUBDOMAIN}$": "a DNS name in lower case such as example.com",
    rf"^$|^{_SUBDOMAIN}$": 'an API group such as gateway.networking.k8s.io, or "" for the core group',
    rf"^(\*\.)?{_SUBDOMAIN}$": "a host name in lower case such as example.com or *.example.com",
    r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$": 'a kind of letters, digits and "-" such as Service',
    r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$": "a header name such as x-model-id",
    r"^[!-~]+([\t ]?[!-~]+)*$": "a header value: visible ASCII, with single spaces inside only",
    r"^([0-9]{1,5}(h|m|s|ms)){1,4}$": 'a duration such as "100ms", "10s" or "1h30m"',
    r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$": "a path or query as in a URL, with %20 style escapes",
    r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)": (
        'an origin such as https://example.com, https://*.example.com:8443 or "*"'
    ),
    r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$": 'a label value: letters, digits, "-", "_" and "."',
    rf"^{_SUBDOMAIN}\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$": "a name with a domain before it such as example.com/name",
    rf"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|{_SUBDOMAIN}\/[A-Za-z0-9]+$": (
        "HTTP, HTTPS, TLS, TCP, UDP or a name with a domain before it such as example.com/name"
    ),
    r"^([1-9][0-9]*)(\.[0-9]+)?([kMG]|[KMG]i)?$": 'a quantity of bytes such as "32Mi"',
}
_QUANTITY_START = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)"
_FORMATS = {"ipv4": "an IPv4 address", "ipv6": "an IPv6 address", "date-time": "a time such as 2026-01-31T12:00:00Z"}
_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}


def explain(error: Any) -> Iterator[FieldProblem]:
    """Problems for one error of jsonschema-rs; of several alternatives, the one that is most nearly met."""
    path: FieldPath = tuple(error.instance_path)
    kind = error.kind
    shown = show(error.instance)
    match kind.name:
        case "required":
            yield FieldProblem((*path, kind.property), "is missing")
        case "type":
            yield FieldProblem(path, _wrong_type(error.instance, list(kind.types)))
        case "enum":
            options = [option if isinstance(option, str) else show(option) for option in kind.options]
            yield FieldProblem(path, f"{shown} is not accepted; one of {', '.join(map(str, options))} is")
        case "pattern":
            yield FieldProblem(path, f"{shown} is not {_pattern(kind.pattern)}")
        case "format":
            yield FieldProblem(path, f"{shown} is not {_FORMATS.get(kind.format, kind.format)}")
        case "minimum":
            yield FieldProblem(path, f"{shown} is too small; at least {kind.limit} is accepted")
        case "maximum":
            yield FieldProblem(path, f"{shown} is too large; at most {kind.limit} is accepted")
        case "minLength":
            yield FieldProblem(path, "is empty" if kind.limit == 1 else f"{shown} is shorter than {kind.limit} characters")
        case "maxLength":
            length = len(error.instance)
            yield FieldProblem(path, f"{shown} has {length} characters; at most {kind.limit} are accepted")
        case "minItems" | "minProperties":
            yield FieldProblem(path, f"has {len(error.instance)} entries; at least {kind.limit} must be there")
        case "maxItems" | "maxProperties":
            yield FieldProblem(path, f"has {len(error.instance)} entries; at most {kind.limit} are accepted")
        case "anyOf" | "oneOf" if getattr(kind, "context", None):
            yield from _alternatives(path, kind.context)
        case _:
            yield FieldProblem(path, f"{shown} is not accepted: {kind.name}")


def _wrong_type(value: Any, accepted: list[str]) -> str:
    names = any_of([_TYPES[name] for name in accepted if name != "null" or len(accepted) == 1])
    if value is None:
        return f"there is nothing here; {names} is needed, or no field at all"
    if "string" in accepted and isinstance(value, bool | int | float):
        return f"{show(value)} is not {names}; put it in quotes"
    return f"{show(value)} is not {names}"


def _pattern(pattern: str) -> str:
    if pattern.startswith(_QUANTITY_START):
        return 'a quantity such as "500m", "2" or "32Mi"'
    return _PATTERNS.get(pattern, f"text that matches {pattern}")


def _alternatives(path: FieldPath, branches: list[list[Any]]) -> Iterator[FieldProblem]:
    """An alternative that fails by its discriminator (enum, not) was not meant; of the rest, the least wrong one."""
    meant = [branch for branch in branches if not any(error.kind.name in ("enum", "not") for error in branch)]
    if meant and all(len(branch) == 1 and branch[0].kind.name == "format" for branch in meant):
        formats = [_FORMATS.get(branch[0].kind.format, branch[0].kind.format) for branch in meant]
        yield FieldProblem(tuple(meant[0][0].instance_path), f"{show(meant[0][0].instance)} is not {any_of(formats)}")
        return
    for error in min(meant or branches, key=len):
        yield from explain(error)
