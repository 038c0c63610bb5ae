"""Listeners of a Gateway and of its ListenerSets, merged and judged.

Everything that depends on attached routes is deliberately absent: an edited route must not come here.
"""

from collections.abc import Mapping

from gwanmun.api.listener import Listener
from gwanmun.memo import Query
from gwanmun.names import ListenerKey, NamespacedName, ObjectKey
from gwanmun.resolve.acceptance import gateway_key, gateway_spec, refusal
from gwanmun.resolve.conflict import Claim, find_conflicts, find_overlaps
from gwanmun.resolve.gatewayclass import class_controller, inference_of
from gwanmun.resolve.hostname import ANY_HOST, canonical
from gwanmun.resolve.listenerset import allowed_sets, set_listeners, set_parent
from gwanmun.resolve.tls import client_identity
from gwanmun.resolve.types import RouteListener
from gwanmun.resolve.verdict import NAMED_PROTOCOLS, ROUTE_KINDS_BY_PROTOCOL, Verdict, judge
from gwanmun.resources.snapshot import GATEWAY_GROUP

__all__ = ["client_identity", "controller_of", "gateway_of", "inference_of", "listeners_of", "verdicts"]


def gateway_of(q: Query, parent: ObjectKey) -> NamespacedName | None:
    """The Gateway that a parentRef leads to: a Gateway itself, a ListenerSet's; None where that is not ours."""
    gateway = parent.namespaced_name if parent.kind == "Gateway" else q.get(set_parent, parent)
    if parent.group != GATEWAY_GROUP or gateway is None or q.get(gateway_spec, gateway) is None:
        return None
    return gateway


def controller_of(q: Query, gateway: NamespacedName) -> str:
    """The controllerName of the Gateway's class; empty where the Gateway is not ours."""
    spec = q.get(gateway_spec, gateway)
    return (q.get(class_controller, spec.gateway_class_name) or "") if spec is not None else ""


def listeners_of(q: Query, gateway: NamespacedName) -> tuple[RouteListener, ...]:
    """All listeners of the Gateway and of the ListenerSets that it lets in, in order of precedence."""
    return tuple(verdict.listener for verdict in q.get(verdicts, gateway).values())


def verdicts(q: Query, gateway: NamespacedName) -> Mapping[ListenerKey, Verdict]:
    """All listeners, judged, in order of precedence; empty where the Gateway is not ours."""
    declared = q.get(declared_listeners, gateway)
    claims = [_claim(key, listener) for key, listener in declared.items() if listener.protocol in ROUTE_KINDS_BY_PROTOCOL]
    conflicts = find_conflicts(claims)
    overlaps = find_overlaps([claim for claim in claims if claim.key not in conflicts])
    refused = q.get(refusal, gateway) is not None
    return {
        key: judge(
            q,
            gateway,
            _claim(key, listener),
            listener,
            conflict=conflicts.get(key),
            overlap=overlaps.get(key),
            refused=refused,
        )
        for key, listener in declared.items()
    }


def declared_listeners(q: Query, gateway: NamespacedName) -> Mapping[ListenerKey, Listener]:
    """The listeners as written, the Gateway's first; of two with one name in one object the first counts."""
    spec = q.get(gateway_spec, gateway)
    if spec is None:
        return {}
    groups = [
        (gateway_key(gateway), spec.listeners),
        *((key, q.get(set_listeners, key)) for key in q.get(allowed_sets, gateway)),
    ]
    declared: dict[ListenerKey, Listener] = {}
    for owner, listeners in groups:
        for listener in listeners:
            declared.setdefault(ListenerKey(owner, listener.name), listener)
    return declared


def _claim(key: ListenerKey, listener: Listener) -> Claim:
    hostname = canonical(listener.hostname) if listener.protocol in NAMED_PROTOCOLS else ANY_HOST
    return Claim(key, listener.port, listener.protocol, hostname)
