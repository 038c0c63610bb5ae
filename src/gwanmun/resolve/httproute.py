"""HTTPRoute and GRPCRoute rules -> ir.Rule: one for each match, in the order of the spec.

Absent on purpose: which listeners and hosts a route is on (`attach`) and what its status says (`routestatus`).
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from gwanmun import ir
from gwanmun.api import GRPCRoute, HTTPRoute
from gwanmun.api.duration import EXAMPLES, parse_duration
from gwanmun.api.filters import SessionPersistence
from gwanmun.api.httproute import HTTPBackendRef, HTTPRouteFilter, HTTPRouteRetry, HTTPRouteTimeouts
from gwanmun.memo import Query
from gwanmun.names import MatchKey, NamespacedName, ObjectKey, RuleKey
from gwanmun.resolve.attach import read_route
from gwanmun.resolve.backend import Referrer
from gwanmun.resolve.fault import Fault, Refusal
from gwanmun.resolve.filters import Filters, resolve_filters, target_filters
from gwanmun.resolve.grpcroute import grpc_filter, grpc_match
from gwanmun.resolve.listener import inference_of
from gwanmun.resolve.match import http_match, is_model_path
from gwanmun.resolve.target import LARGEST_WEIGHT, find_target, target_label

DEFAULT_RETRY_ATTEMPTS = 1
"""Where `retry` names no number of attempts."""


class Source(NamedTuple):
    """A rule of either kind of route. `matches` are judged: a match, or what is wrong with it."""

    position: int
    name: str | None
    matches: tuple[ir.HttpMatch | str, ...]
    filters: tuple[HTTPRouteFilter, ...]
    backends: tuple[HTTPBackendRef, ...]
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session_persistence: SessionPersistence | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The rules of a route as one Gateway serves it, what is wrong with them, and how many the route has."""

    rules: tuple[ir.Rule, ...] = ()
    faults: tuple[Fault, ...] = ()
    count: int = 0


def resolved_http(q: Query, route: ObjectKey, gateway: NamespacedName) -> Resolved:
    """One ir.Rule for each match of an HTTPRoute or GRPCRoute as `gateway` serves it, in the order of the spec, and what is
    wrong."""
    sources = _sources(q, route)
    protocol = "http2" if route.kind == "GRPCRoute" else "http1"
    referrer = Referrer(route.group, route.kind, route.namespace, gateway, protocol)
    model_header = q.get(inference_of, gateway).model_header.lower()
    rules: list[ir.Rule] = []
    faults: list[Fault] = []
    for source in sources:
        made, wrong = _rule(q, route, referrer, source, model_header)
        rules.extend(made)
        faults.extend(wrong)
    return Resolved(tuple(rules), tuple(faults), len(sources))


def _sources(q: Query, route: ObjectKey) -> tuple[Source, ...]:
    match read_route(q, route):
        case HTTPRoute(spec=spec):
            return tuple(
                Source(
                    index,
                    rule.name,
                    tuple(http_match(match, f"spec.rules[{index}].matches[{i}]") for i, match in enumerate(rule.matches))
                    or (ir.HttpMatch(),),
                    rule.filters,
                    rule.backend_refs,
                    rule.timeouts,
                    rule.retry,
                    rule.session_persistence,
                )
                for index, rule in enumerate(spec.rules)
            )
        case GRPCRoute(spec=spec):
            return tuple(
                Source(
                    index,
                    rule.name,
                    tuple(grpc_match(match, f"spec.rules[{index}].matches[{i}]") for i, match in enumerate(rule.matches))
                    or (ir.HttpMatch(grpc=True),),
                    tuple(map(grpc_filter, rule.filters)),
                    tuple(
                        HTTPBackendRef(
                            ref.name,
                            ref.group,
                            ref.kind,
                            ref.namespace,
                            ref.port,
                            ref.weight,
                            tuple(map(grpc_filter, ref.filters)),
                        )
                        for ref in rule.backend_refs
                    ),
                    session_persistence=rule.session_persistence,
                )
                for index, rule in enumerate(spec.rules)
            )
        case _:
            return ()


def _rule(
    q: Query, route: ObjectKey, referrer: Referrer, source: Source, model_header: str
) -> tuple[list[ir.Rule], list[Fault]]:
    bad = [match for match in source.matches if isinstance(match, str)]
    if bad:
        return [], [Fault(source.position, "Accepted", "dropped", "UnsupportedValue", message) for message in bad]
    matches = [match for match in source.matches if isinstance(match, ir.HttpMatch)]
    filters, found = resolve_filters(q, referrer, source.filters, rule=source.position)
    targets, models, unresolved = _targets(q, referrer, source)
    faults = [*found, *_prefix_faults(source.position, filters, matches), *unresolved, *_session_faults(source)]
    broken = next((fault.message for fault in faults if fault.effect == "answers 500"), None)
    if broken is not None:
        action: ir.Action = ir.Respond(500, broken)
    elif filters.redirect is not None:
        action = filters.redirect
    else:
        action, wrong = _forward(source, filters, targets)
        faults.extend(wrong)
    made = [
        ir.Rule(
            key=MatchKey(RuleKey(route, source.position), index),
            match=match,
            action=action,
            name=source.name,
            request_headers=filters.request_headers,
            response_headers=filters.response_headers,
            cors=filters.cors,
            inference=models or is_model_path(match.path) or any(header.name == model_header for header in match.headers),
        )
        for index, match in enumerate(matches)
    ]
    return made, faults


def _prefix_faults(rule: int, filters: Filters, matches: list[ir.HttpMatch]) -> list[Fault]:
    """Only a prefix that was matched can be replaced."""
    path = filters.redirect.path if filters.redirect is not None else filters.rewrite_path
    if not isinstance(path, ir.ReplacePrefix) or all(isinstance(match.path, ir.PrefixPath) for match in matches):
        return []
    message = f"spec.rules[{rule}]: ReplacePrefixMatch needs matches of type PathPrefix only"
    return [Fault(rule, "Accepted", "answers 500", "IncompatibleFilters", message)]


def _session_faults(source: Source) -> list[Fault]:
    if source.session_persistence is None:
        return []
    message = f"spec.rules[{source.position}].sessionPersistence is not supported; the rule serves without it"
    return [Fault(source.position, "Accepted", "ignored", "UnsupportedValue", message)]


def _targets(q: Query, referrer: Referrer, source: Source) -> tuple[tuple[ir.WeightedTarget, ...], bool, list[Fault]]:
    """The backends that have a share, in the order of the spec, and whether one of them is known to serve models; those that
    cannot be used keep theirs without a target."""
    targets: list[ir.WeightedTarget] = []
    models = False
    faults: list[Fault] = []
    for index, ref in enumerate(source.backends):
        where = f"spec.rules[{source.position}].backendRefs[{index}]"
        found, wrong = find_target(q, referrer, ref, rule=source.position, where=where)
        faults.extend(wrong)
        edits = target_filters(ref.filters, where)
        if isinstance(edits, Refusal):
            faults.append(Fault(source.position, "Accepted", "partly served", edits.reason, edits.message))
            found, edits = None, (None, None)
        if ref.weight > 0:
            request, response = edits
            name = target_label(referrer, ref)
            weight = min(ref.weight, LARGEST_WEIGHT)
            if found is None:
                targets.append(ir.WeightedTarget(None, weight, request, response, name))
                continue
            models = models or found.serves_models
            near = found.prefers_near
            targets.append(ir.WeightedTarget(found.cluster, weight, request, response, name, found.picker, prefers_near=near))
    return tuple(targets), models, faults


def _forward(source: Source, filters: Filters, targets: tuple[ir.WeightedTarget, ...]) -> tuple[ir.Action, list[Fault]]:
    where = f"spec.rules[{source.position}]"
    if not source.backends:
        return ir.Respond(500, f"{where} has no backendRefs"), []
    if not targets:
        return ir.Respond(500, f"{where}: every backendRef has weight 0"), []
    if all(target.target is None for target in targets):
        return ir.Respond(500, f"{where}: no backendRef can be used"), []
    timeouts = source.timeouts or HTTPRouteTimeouts()
    rule = source.position
    timeout, no_timeout = _duration(timeouts.request, f"{where}.timeouts.request", rule)
    backend_timeout, no_backend_timeout = _duration(timeouts.backend_request, f"{where}.timeouts.backendRequest", rule)
    retry, not_retried = _retry(source.retry, f"{where}.retry", rule) if source.retry is not None else (None, [])
    action = ir.Forward(
        targets=targets,
        timeout=timeout,
        backend_timeout=backend_timeout,
        retry=retry,
        mirrors=filters.mirrors,
        rewrite_host=filters.rewrite_host,
        rewrite_path=filters.rewrite_path,
    )
    return action, [*no_timeout, *no_backend_timeout, *not_retried]


def _duration(text: str | None, where: str, rule: int) -> tuple[timedelta | None, list[Fault]]:
    """The duration; None where there is none, where it is "0s" (no limit), and where it is not one, which is a fault."""
    if text is None:
        return None, []
    duration = parse_duration(text)
    if duration is None:
        return None, [Fault(rule, "Accepted", "ignored", "UnsupportedValue", f'{where}: "{text}" is not {EXAMPLES}; ignored')]
    return duration or None, []


def _retry(spec: HTTPRouteRetry, where: str, rule: int) -> tuple[ir.Retry | None, list[Fault]]:
    attempts = DEFAULT_RETRY_ATTEMPTS if spec.attempts is None else spec.attempts
    backoff, faults = _duration(spec.backoff, f"{where}.backoff", rule)
    strange = [code for code in spec.codes if not 400 <= code <= 599]
    if strange:
        message = f"{where}.codes: {', '.join(map(str, strange))} not from 400 to 599; ignored"
        faults = [*faults, Fault(rule, "Accepted", "ignored", "UnsupportedValue", message)]
    codes = tuple(sorted(set(spec.codes) - set(strange)))
    return (ir.Retry(attempts, codes, backoff) if attempts > 0 else None), faults
