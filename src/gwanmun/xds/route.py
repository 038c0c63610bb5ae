"""One rule as Envoy's route entries, serialized.

Deliberately absent: which rules make up a host, and which hosts a listener (``table``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Final, Literal, assert_never

from gwanmun.ir import Forward, HeaderEdits, Mirror, Redirect, RegexPath, ReplacePrefix, Respond, Retry, Rule, WeightedTarget
from gwanmun.protos import pb, serialize, struct
from gwanmun.xds import names
from gwanmun.xds.filters.cors import NAME as CORS
from gwanmun.xds.filters.cors import cors_policy
from gwanmun.xds.filters.extproc import EXTPROC, ask_picker
from gwanmun.xds.filters.inference import INFERENCE, unneeded
from gwanmun.xds.filters.wholebody import WHOLE_BODY, hold_body
from gwanmun.xds.headers import composed, edit_problems, header_edits, host_set_by
from gwanmun.xds.match import route_match
from gwanmun.xds.path import path_rewrite
from gwanmun.xds.types import Fields, extension, number

NO_LIMIT: Final = timedelta(0)
STREAM_IDLE: Final = timedelta(minutes=5)
"""How long nothing may come or go on a stream, where the rule is not of a model API."""

_WELL_KNOWN: Final = {"http": 80, "https": 443}
_REDIRECT_CODES: Final = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_SAFE_RETRIES: Final = "connect-failure,refused-stream,reset-before-request"
"""What can be sent again without asking: the backend has not seen the request. Every forwarded request is, twice at most:
replicas that come and go cost no failed requests. Other retries are the user's decision."""

_OVERLOADED: Final = (429, 503)
"""How a model server says that it has too much to do, before it has done anything."""

_RETRY_BODY_BYTES: Final = 32 * 1024 * 1024
"""How much of a body is kept for a retry after an answer. Envoy gives up retrying beyond it, without a word; its own
default, 1 MiB, is less than a long prompt."""


@dataclass(frozen=True, slots=True)
class RouteContext:
    """What a route has to know of its listener: the scheme and port it came in on, for each TCP port of the Gateway the one
    that clients see (they differ where a port is bound elsewhere), the model's header where the native module sees to it that
    requests have one value of it at most, and whether the module chooses the table that the route is in."""

    scheme: Literal["http", "https"]
    port: int
    advertised: tuple[tuple[int, int], ...] = ()
    one_valued: str | None = None
    sharded: bool = False

    @property
    def spared_header(self) -> str | None:
        """A header; what has it and is routed by it need not go through the module. None: everything has to."""
        return None if self.sharded else self.one_valued

    def seen(self, port: int) -> int:
        """`port` as clients see it."""
        return next((seen for number, seen in self.advertised if number == port), port)


def route_entries(rule: Rule, domain: str, context: RouteContext, *, spared: bool) -> Iterator[bytes]:
    """The rule as serialized Route messages; usually one. `domain` is that of the virtual host. `spared`: its requests need
    nothing of the native module."""
    for fields in _entries(rule, domain, context):
        yield serialize(pb("envoy.config.route.v3.Route")(name=names.match(rule.key), **_common(rule, spared=spared), **fields))


def rule_problems(rule: Rule) -> Iterator[str]:
    """What of the rule Envoy cannot express; it is left out."""
    yield from edit_problems(rule.request_headers)
    yield from edit_problems(rule.response_headers)
    match rule.action:
        case Forward(targets=targets, rewrite_path=rewrite):
            for target in targets:
                yield from edit_problems(target.request_headers)
                yield from edit_problems(target.response_headers)
        case Redirect(path=rewrite):
            pass
        case Respond():
            rewrite = None
    if isinstance(rewrite, ReplacePrefix) and isinstance(rule.match.path, RegexPath):
        yield "a prefix can be replaced only where the path is matched by prefix; the path is left as it is"


def _entries(rule: Rule, domain: str, context: RouteContext) -> Iterator[Fields]:
    match rule.action:
        case Forward() as forward:
            yield {"match": route_match(rule.match), "route": _forward(forward, rule)}
        case Redirect() as redirect:
            yield from _redirects(redirect, rule, domain, context)
        case Respond(status=status):
            yield {"match": route_match(rule.match), "direct_response": {"status": status}}
        case _:
            assert_never(rule.action)


def _common(rule: Rule, *, spared: bool) -> Fields:
    fields = header_edits("response", rule.response_headers)
    if not _edits_by_target(rule):
        fields |= header_edits("request", rule.request_headers)
    filters = dict(_filters(rule, spared=spared))
    if filters:
        fields["typed_per_filter_config"] = filters
    if rule.inference:
        fields["metadata"] = {"filter_metadata": {names.METADATA: struct({"ai": True})}}  # ``localreply`` looks at it
    if isinstance(rule.action, Forward) and (rule.action.retry is not None or _spills(rule.action, rule)):
        fields["request_body_buffer_limit"] = number(_RETRY_BODY_BYTES)
    return fields


def _filters(rule: Rule, *, spared: bool) -> Iterator[tuple[str, Any]]:
    if spared:
        yield INFERENCE, unneeded()
    if rule.cors is not None:
        yield CORS, cors_policy(rule.cors)
    if isinstance(rule.action, Forward):
        if rule.action.holds_bodies:
            yield WHOLE_BODY, hold_body()
        if _alone(rule.action.targets) and rule.action.targets[0].picker is not None:
            yield EXTPROC, ask_picker(rule.action.targets[0].picker)


def asks_picker(rule: Rule) -> bool:
    """Whether some request that the rule takes goes where a picker says."""
    return isinstance(rule.action, Forward) and any(target.picker is not None for target in rule.action.targets)


# Forwarding


def _edits_by_target(rule: Rule) -> bool:
    """Envoy edits requests for the backend first and for the rule after it, so that the rule would have the last word. Where
    backends have edits of their own, those of the rule are made part of them. (Of answers, the rule is to have it.)"""
    return isinstance(rule.action, Forward) and any(target.request_headers is not None for target in rule.action.targets)


def _forward(forward: Forward, rule: Rule) -> Fields:
    timeout = _request_timeout(forward, rule)
    host = forward.rewrite_host or host_set_by(rule.request_headers)
    return {
        **_destination(forward.targets, rule),
        # A share whose backend could not be resolved goes to a cluster that is not there: its requests fail with 500.
        "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
        "timeout": timeout,
        **_idle_timeout(rule, timeout),
        "retry_policy": _retry_policy(forward, rule),
        "request_mirror_policies": [_mirror(mirror) for mirror in forward.mirrors],
        **({"host_rewrite_literal": host} if host else {}),
        **path_rewrite(forward.rewrite_path, rule.match.path),
    }


def _idle_timeout(rule: Rule, timeout: timedelta) -> Fields:
    """How long nothing may come or go. An answer of a model that is not streamed sends nothing until it is finished, after a
    place in the queue and minutes of generation: there is no limit, which costs less than any. A client or backend that has
    left is noticed at once, one that has vanished by the connection's keep-alive."""
    if rule.inference:
        return {"idle_timeout": NO_LIMIT}
    # A lower one would cut what the user has allowed to take longer.
    return {"idle_timeout": max(timeout, STREAM_IDLE)}


def _request_timeout(forward: Forward, rule: Rule) -> timedelta:
    """Envoy's own default is 15 s: no limit has to be said. Without retries an attempt is the whole request, and this is the
    only timeout that also ends an answer that has begun; streams of a model API are not to be cut by it."""
    limits = [forward.timeout]
    if forward.retry is None and not rule.inference:
        limits.append(forward.backend_timeout)
    return min((limit for limit in limits if limit is not None and limit > NO_LIMIT), default=NO_LIMIT)


def _destination(targets: tuple[WeightedTarget, ...], rule: Rule) -> Fields:
    if _alone(targets):
        return {"cluster": _cluster(targets[0])}
    return {"weighted_clusters": {"clusters": [_weighted(target, rule) for target in targets]}}


def _alone(targets: tuple[WeightedTarget, ...]) -> bool:
    return len(targets) == 1 and targets[0].request_headers is None and targets[0].response_headers is None


def _weighted(target: WeightedTarget, rule: Rule) -> Fields:
    host = host_set_by(target.request_headers)
    edits = target.request_headers
    if _edits_by_target(rule):
        edits = composed(rule.request_headers, edits or HeaderEdits())
    return {
        "name": _cluster(target),
        "weight": number(target.weight),
        **header_edits("request", edits),
        **header_edits("response", target.response_headers),
        **({"host_rewrite_literal": host} if host else {}),
        **({"typed_per_filter_config": {EXTPROC: ask_picker(target.picker)}} if target.picker is not None else {}),
    }


def _cluster(target: WeightedTarget) -> str:
    return names.UNRESOLVED if target.target is None else names.cluster(target.target)


def _retry_policy(forward: Forward, rule: Rule) -> Fields:
    policy: Fields = {
        "retry_host_predicate": [
            extension(
                "envoy.retry_host_predicates.previous_hosts",
                "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            )
        ],
        "host_selection_retry_max_attempts": 3,
        **_retried(forward, rule),
    }
    if any(target.prefers_near for target in forward.targets):
        policy |= _further()
    # For a model API this is the time to the first byte of an answer, since headers come with it.
    if forward.backend_timeout and (forward.retry is not None or rule.inference):
        policy["per_try_timeout"] = forward.backend_timeout
    return policy


def _retried(forward: Forward, rule: Rule) -> Fields:
    if forward.retry is not None:
        return _user_retry(forward.retry)
    return _SPILL_RETRY if _spills(forward, rule) else _SAFE_RETRY


def _spills(forward: Forward, rule: Rule) -> bool:
    """Whether another endpoint is asked where one says that it has too much to do: near ones take everything, though others
    might be idle, and the user says nothing of retries. Only of a model API it is known that such an answer means that nothing
    has been done."""
    there = (target for target in forward.targets if target.target is not None)
    return rule.inference and forward.retry is None and all(target.prefers_near for target in there)


_SAFE_RETRY: Final[Fields] = {"retry_on": _SAFE_RETRIES, "num_retries": number(2)}
_SPILL_RETRY: Final[Fields] = _SAFE_RETRY | {
    "retry_on": f"{_SAFE_RETRIES},retriable-status-codes",
    "retriable_status_codes": list(_OVERLOADED),
}


@cache
def _further() -> Fields:
    """A retry goes to a priority that has not been tried: away from near endpoints (``endpoint``). Where there is none, it
    takes more draws to come by an endpoint that weighs little; one costs less than a microsecond."""
    return {
        "retry_priority": extension(
            "envoy.retry_priorities.previous_priorities",
            "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            update_frequency=1,
        ),
        "host_selection_retry_max_attempts": 100,
    }


def _user_retry(retry: Retry) -> Fields:
    # Connection errors are retried along with the codes (GEP-1731); `reset` covers an attempt that took too long.
    conditions = "connect-failure,refused-stream,reset" + (",retriable-status-codes" if retry.codes else "")
    policy: Fields = {
        "retry_on": conditions,
        "retriable_status_codes": list(retry.codes),
        "num_retries": number(retry.attempts),
    }
    if retry.backoff:
        policy["retry_back_off"] = {"base_interval": retry.backoff, "max_interval": retry.backoff * 10}
    return policy


def _mirror(mirror: Mirror) -> Fields:
    millionths = mirror.numerator * 1_000_000 // mirror.denominator
    return {
        "cluster": names.cluster(mirror.target),
        "runtime_fraction": {"default_value": {"numerator": millionths, "denominator": "MILLION"}},
        "disable_shadow_host_suffix_append": True,  # a mirror that sees another Host would not be one
    }


# Redirects


def _redirects(redirect: Redirect, rule: Rule, domain: str, context: RouteContext) -> Iterator[Fields]:
    fields: Fields = {
        "response_code": _REDIRECT_CODES[redirect.status],
        **({"scheme_redirect": redirect.scheme} if redirect.scheme else {}),
        **({"host_redirect": redirect.host} if redirect.host else {}),
        **path_rewrite(redirect.path, rule.match.path),
    }
    port = _redirect_port(redirect, context)
    visible = port != _WELL_KNOWN[_scheme(redirect, context)]
    if visible:
        yield {"match": route_match(rule.match), "redirect": fields | {"port_redirect": port}}
    elif redirect.host:
        yield {"match": route_match(rule.match), "redirect": fields}
    elif "*" not in domain:
        yield {"match": route_match(rule.match), "redirect": fields | {"host_redirect": domain}}
    else:
        # Envoy takes the port of the request's Host over unless another one is named, and naming one shows it.
        yield {"match": route_match(rule.match, host_with_port=True), "redirect": fields | {"port_redirect": port}}
        yield {"match": route_match(rule.match), "redirect": fields}


def _redirect_port(redirect: Redirect, context: RouteContext) -> int:
    match redirect.port:
        case "listener":
            return context.seen(context.port)
        case None:
            return context.seen(_WELL_KNOWN[_scheme(redirect, context)])
        case port:
            return context.seen(port)


def _scheme(redirect: Redirect, context: RouteContext) -> str:
    return redirect.scheme if redirect.scheme in _WELL_KNOWN else context.scheme
