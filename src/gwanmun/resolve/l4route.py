"""TLSRoute, TCPRoute and UDPRoute rules -> ir.L4Rule."""

from dataclasses import dataclass

from gwanmun import ir
from gwanmun.api import TCPRoute, TLSRoute, UDPRoute
from gwanmun.api.references import BackendRef
from gwanmun.memo import Query
from gwanmun.names import NamespacedName, ObjectKey, RuleKey
from gwanmun.resolve.attach import attachments, read_route
from gwanmun.resolve.backend import TLS_OVER_TCP, Referrer
from gwanmun.resolve.fault import Fault
from gwanmun.resolve.listener import listeners_of
from gwanmun.resolve.target import LARGEST_WEIGHT, find_target, target_label

MIXED_MODES = (
    "the backend wants TLS, which connections of the Passthrough listeners already carry; use one route for them and another "
    "for the terminating listeners (parentRefs[].sectionName)"
)


@dataclass(frozen=True, slots=True)
class ResolvedL4:
    """The rules of a route as one Gateway serves it, what is wrong with them, and how many the route has."""

    rules: tuple[ir.L4Rule, ...] = ()
    faults: tuple[Fault, ...] = ()
    count: int = 0


def l4_rules(q: Query, route: ObjectKey, gateway: NamespacedName) -> tuple[ir.L4Rule, ...]:
    """The rules of a TLSRoute, TCPRoute or UDPRoute as `gateway` serves them, in the order of the spec.

    A share whose target is None is refused: there is no answer to give below HTTP but to close the connection.
    """
    return q.get(resolved_l4, route, gateway).rules


def resolved_l4(q: Query, route: ObjectKey, gateway: NamespacedName) -> ResolvedL4:
    """The same with what is wrong."""
    obj = read_route(q, route)
    if not isinstance(obj, TLSRoute | TCPRoute | UDPRoute):
        return ResolvedL4()
    referrer = Referrer(route.group, route.kind, route.namespace, gateway, _protocol(q, route, gateway))
    modes = q.get(tls_modes, route, gateway)
    hosts = tuple(sorted({name.lower() for name in obj.spec.hostnames})) if isinstance(obj, TLSRoute) else ()
    rules: list[ir.L4Rule] = []
    faults: list[Fault] = []
    for index, rule in enumerate(obj.spec.rules):
        targets, wrong = _targets(q, referrer, rule.backend_refs, modes, rule=index)
        rules.append(ir.L4Rule(RuleKey(route, index), targets, hosts, rule.name))
        faults.extend(wrong)
    return ResolvedL4(tuple(rules), tuple(faults), len(rules))


def _protocol(q: Query, route: ObjectKey, gateway: NamespacedName) -> str:
    """What is spoken to backends by default: a terminated TLSRoute's bytes go over TLS again where a policy asks for it."""
    match route.kind:
        case "UDPRoute":
            return "udp"
        case "TLSRoute" if "Terminate" in q.get(tls_modes, route, gateway):
            return TLS_OVER_TCP
        case _:
            return "tcp"


def tls_modes(q: Query, route: ObjectKey, gateway: NamespacedName) -> tuple[str, ...]:
    """The TLS modes of the listeners of a Gateway that a route is attached to, sorted."""
    attached = {listener for entry in q.get(attachments, route) if entry.gateway == gateway for listener, _ in entry.listeners}
    return tuple(sorted({entry.tls_mode or "" for entry in q.get(listeners_of, gateway) if entry.key in attached}))


def _targets(
    q: Query, referrer: Referrer, refs: tuple[BackendRef, ...], modes: tuple[str, ...], *, rule: int
) -> tuple[tuple[ir.WeightedTarget, ...], list[Fault]]:
    targets: list[ir.WeightedTarget] = []
    faults: list[Fault] = []
    for index, ref in enumerate(refs):
        where = f"spec.rules[{rule}].backendRefs[{index}]"
        found, wrong = find_target(q, referrer, ref, rule=rule, where=where)
        cluster = found.cluster if found is not None else None
        if cluster is not None and cluster.protocol == TLS_OVER_TCP and "Passthrough" in modes:
            cluster, wrong = None, [Fault(rule, "Accepted", "partly served", "UnsupportedValue", f"{where}: {MIXED_MODES}")]
        faults.extend(wrong)
        if ref.weight > 0:
            targets.append(ir.WeightedTarget(cluster, min(ref.weight, LARGEST_WEIGHT), label=target_label(referrer, ref)))
    return tuple(targets), faults
