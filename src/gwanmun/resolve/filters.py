"""Filters of HTTPRoute and GRPCRoute rules: what they change, redirect, copy and allow.

Order does not matter here: each kind of filter acts at its own place, and CRD validation lets most appear once only.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from gwanmun import ir
from gwanmun.api.filters import HTTPHeader, HTTPHeaderFilter, HTTPRequestMirrorFilter
from gwanmun.api.httproute import (
    HTTPCORSFilter,
    HTTPPathModifier,
    HTTPRequestRedirectFilter,
    HTTPRouteFilter,
    HTTPURLRewriteFilter,
)
from gwanmun.memo import Query
from gwanmun.names import ObjectKey
from gwanmun.resolve.backend import Referrer, resolve_ref, unreachable
from gwanmun.resolve.fault import Fault, Refusal

REDIRECT_STATUSES = (301, 302, 303, 307, 308)
WELL_KNOWN_PORTS = {"http": 80, "https": 443}

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+", re.ASCII)
UNSAFE_IN_VALUE = re.compile(r"[\x00\r\n]")
UNSAFE_IN_PATH = re.compile(r"[\x00-\x20\x7f]")  # the API leaves replacements free; in a request line these end the path
UNCHANGEABLE = ("host",)
"""No header like others to Envoy: a request's Host can be set, but not added to or removed, and answers have none."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What the filters of one rule ask for together."""

    request_headers: ir.HeaderEdits | None = None
    response_headers: ir.HeaderEdits | None = None
    redirect: ir.Redirect | None = None
    rewrite_host: str | None = None
    rewrite_path: ir.PathRewrite | None = None
    mirrors: tuple[ir.Mirror, ...] = ()
    cors: ir.Cors | None = None


Found = Filters | Refusal
EXTENSIONS: Mapping[tuple[str, str], Callable[[Query, ObjectKey, Filters], Found]] = {}
"""What an ExtensionRef may name, by (group, kind): given the object and the filters so far, the filters with it."""


def resolve_filters(
    q: Query, referrer: Referrer, filters: tuple[HTTPRouteFilter, ...], *, rule: int
) -> tuple[Filters, tuple[Fault, ...]]:
    """The filters of rule number `rule`, and what is wrong with them."""
    found = Filters()
    faults: list[Fault] = []
    for index, entry in enumerate(filters):
        where = f"spec.rules[{rule}].filters[{index}]"
        result = _one(q, referrer, found, entry)
        if isinstance(result, Filters):
            found = result
        else:
            faults.append(_fault(rule, entry, Refusal(result.reason, f"{where}: {result.message}")))
    if found.redirect is not None and (found.rewrite_host is not None or found.rewrite_path is not None):
        message = f"spec.rules[{rule}].filters: RequestRedirect and URLRewrite exclude each other; remove one"
        faults.append(Fault(rule, "Accepted", "answers 500", "IncompatibleFilters", message))
    return found, tuple(faults)


def _fault(rule: int, entry: HTTPRouteFilter, refusal: Refusal) -> Fault:
    """A filter that cannot be had must not be skipped: the rule answers 500. Only a copy may be missing."""
    match entry.type:
        case "RequestMirror":
            return Fault(rule, "ResolvedRefs", "ignored", refusal.reason, refusal.message)
        case "ExtensionRef":
            return Fault(rule, "ResolvedRefs", "answers 500", refusal.reason, refusal.message)
        case _:
            return Fault(rule, "Accepted", "answers 500", refusal.reason, refusal.message)


def _one(q: Query, referrer: Referrer, so_far: Filters, entry: HTTPRouteFilter) -> Found:
    match entry.type:
        case "RequestHeaderModifier" if entry.request_header_modifier is not None:
            edits = header_edits(entry.request_header_modifier, settable=("host",))
            return edits if isinstance(edits, Refusal) else replace(so_far, request_headers=edits)
        case "ResponseHeaderModifier" if entry.response_header_modifier is not None:
            edits = header_edits(entry.response_header_modifier)
            return edits if isinstance(edits, Refusal) else replace(so_far, response_headers=edits)
        case "RequestRedirect" if entry.request_redirect is not None:
            redirect = _redirect(entry.request_redirect)
            return redirect if isinstance(redirect, Refusal) else replace(so_far, redirect=redirect)
        case "URLRewrite" if entry.url_rewrite is not None:
            return _rewrite(so_far, entry.url_rewrite)
        case "RequestMirror" if entry.request_mirror is not None:
            return _mirror(q, referrer, so_far, entry.request_mirror)
        case "CORS" if entry.cors is not None:
            return replace(so_far, cors=_cors(entry.cors))
        case "ExtensionRef" if entry.extension_ref is not None:
            ref = entry.extension_ref
            return _extension(q, so_far, ObjectKey(ref.group, ref.kind, referrer.namespace, ref.name))
        case "ExternalAuth":
            return Refusal("UnsupportedValue", "ExternalAuth is not supported")
        case kind if kind in _FIELDS:
            return Refusal("UnsupportedValue", f"type {kind} needs the field {_FIELDS[kind]}")
        case kind:
            return Refusal("UnsupportedValue", f'type "{kind}" is not one of {", ".join(_FIELDS)}')


_FIELDS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "RequestMirror": "requestMirror",
    "CORS": "cors",
    "ExtensionRef": "extensionRef",
}
"""The supported types, with the field that each needs."""


def header_edits(changes: HTTPHeaderFilter, *, settable: tuple[str, ...] = ()) -> ir.HeaderEdits | Refusal:
    """Header changes; of two for one name in one list the first counts. `settable` may be set, though not changed else."""
    for names, but in (
        ([entry.name for entry in changes.set_], settable),
        ([entry.name for entry in changes.add], ()),
        (changes.remove, ()),
    ):
        for name in names:
            if HEADER_NAME.fullmatch(name) is None or (name.lower() in UNCHANGEABLE and name.lower() not in but):
                return Refusal(
                    "UnsupportedValue", f'header "{name}" cannot be changed so; a host is set by URLRewrite.hostname'
                )
    for entry in (*changes.set_, *changes.add):
        if UNSAFE_IN_VALUE.search(entry.value) is not None:
            return Refusal("UnsupportedValue", f'the value of header "{entry.name}" has a line break or a zero byte')
    removed = tuple(dict.fromkeys(name.lower() for name in changes.remove))
    return ir.HeaderEdits(_first(changes.set_), _first(changes.add), removed)


def _first(headers: Iterable[HTTPHeader]) -> tuple[tuple[str, str], ...]:
    found: dict[str, tuple[str, str]] = {}
    for header in headers:
        found.setdefault(header.name.lower(), (header.name, header.value))
    return tuple(found.values())


def _redirect(spec: HTTPRequestRedirectFilter) -> ir.Redirect | Refusal:
    if spec.status_code not in REDIRECT_STATUSES:
        known = ", ".join(map(str, REDIRECT_STATUSES))
        return Refusal("UnsupportedValue", f"requestRedirect.statusCode: {spec.status_code} is not one of {known}")
    if spec.scheme is not None and spec.scheme not in WELL_KNOWN_PORTS:
        return Refusal("UnsupportedValue", f'requestRedirect.scheme: "{spec.scheme}" is not one of http and https')
    path = _path(spec.path, "requestRedirect.path") if spec.path is not None else None
    if isinstance(path, Refusal):
        return path
    host = spec.hostname.lower() if spec.hostname is not None else None
    return ir.Redirect(spec.status_code, spec.scheme, host, path, _redirect_port(spec.scheme, spec.port))


def _redirect_port(scheme: str | None, port: int | None) -> int | Literal["listener"] | None:
    """Where no port is given it follows the scheme, and where none of them is given it stays the listener's."""
    if port is None:
        return "listener" if scheme is None else None
    return None if scheme is not None and WELL_KNOWN_PORTS[scheme] == port else port


def _path(spec: HTTPPathModifier, where: str) -> ir.PathRewrite | Refusal:
    if UNSAFE_IN_PATH.search((spec.replace_full_path or "") + (spec.replace_prefix_match or "")) is not None:
        return Refusal(
            "UnsupportedValue", f"{where}: the new path has a space or a control character; write it as %20 and so on"
        )
    match spec.type:
        case "ReplaceFullPath" if spec.replace_full_path is not None:
            return ir.ReplaceFullPath(spec.replace_full_path)
        case "ReplacePrefixMatch" if spec.replace_prefix_match is not None:
            return ir.ReplacePrefix(spec.replace_prefix_match)
        case "ReplaceFullPath" | "ReplacePrefixMatch":
            return Refusal("UnsupportedValue", f"{where}: type {spec.type} needs the field of that name")
        case kind:
            return Refusal("UnsupportedValue", f'{where}.type: "{kind}" is not one of ReplaceFullPath and ReplacePrefixMatch')


def _rewrite(so_far: Filters, spec: HTTPURLRewriteFilter) -> Found:
    path = _path(spec.path, "urlRewrite.path") if spec.path is not None else None
    if isinstance(path, Refusal):
        return path
    return replace(so_far, rewrite_host=spec.hostname.lower() if spec.hostname is not None else None, rewrite_path=path)


def _mirror(q: Query, referrer: Referrer, so_far: Filters, spec: HTTPRequestMirrorFilter) -> Found:
    target = resolve_ref(q, referrer, spec.backend_ref)
    if isinstance(target, Refusal):
        return Refusal(target.reason, f"requestMirror.backendRef: {target.message}; requests are not mirrored to it")
    if not target.reachable:
        return Refusal("UnsupportedValue", f"requestMirror.backendRef: {unreachable(target.cluster)}")
    numerator, denominator = _share(spec)
    if numerator == 0:
        return so_far
    return replace(so_far, mirrors=(*so_far.mirrors, ir.Mirror(target.cluster, numerator, denominator)))


def _share(spec: HTTPRequestMirrorFilter) -> tuple[int, int]:
    if spec.fraction is not None:
        denominator = max(spec.fraction.denominator, 1)
        return min(max(spec.fraction.numerator, 0), denominator), denominator
    if spec.percent is not None:
        return min(max(spec.percent, 0), 100), 100
    return 100, 100


def _cors(spec: HTTPCORSFilter) -> ir.Cors:
    return ir.Cors(
        allow_origins=tuple(dict.fromkeys(spec.allow_origins)),
        allow_methods=tuple(dict.fromkeys(spec.allow_methods)),
        allow_headers=tuple(dict.fromkeys(spec.allow_headers)),
        expose_headers=tuple(dict.fromkeys(spec.expose_headers)),
        allow_credentials=bool(spec.allow_credentials),
        max_age=timedelta(seconds=max(spec.max_age, 0)),
    )


def _extension(q: Query, so_far: Filters, key: ObjectKey) -> Found:
    extend = EXTENSIONS.get((key.group, key.kind))
    if extend is None:
        known = ", ".join(kind for _, kind in EXTENSIONS) or "none"
        message = f'extensionRef: kind "{key.kind}" of group "{key.group}" is no filter here; supported: {known}'
        return Refusal("InvalidKind", message)
    return extend(q, key, so_far)


def target_filters(
    filters: tuple[HTTPRouteFilter, ...], where: str
) -> tuple[ir.HeaderEdits | None, ir.HeaderEdits | None] | Refusal:
    """The header changes of one backendRef, for requests and responses; no other filter can be had for a share alone."""
    request: ir.HeaderEdits | None = None
    response: ir.HeaderEdits | None = None
    for index, entry in enumerate(filters):
        match entry.type:
            case "RequestHeaderModifier" if entry.request_header_modifier is not None:
                edits = header_edits(entry.request_header_modifier, settable=("host",))
                request = edits if isinstance(edits, ir.HeaderEdits) else request
            case "ResponseHeaderModifier" if entry.response_header_modifier is not None:
                edits = header_edits(entry.response_header_modifier)
                response = edits if isinstance(edits, ir.HeaderEdits) else response
            case kind:
                supported = "RequestHeaderModifier and ResponseHeaderModifier"
                return Refusal(
                    "UnsupportedValue", f'{where}.filters[{index}]: "{kind}" on a backendRef; supported there: {supported}'
                )
        if isinstance(edits, Refusal):
            return Refusal(edits.reason, f"{where}.filters[{index}]: {edits.message}")
    return request, response
