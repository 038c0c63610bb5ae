"""The status of Gateways and ListenerSets: what was made of them and of each of their listeners.

`Programmed` says here that there is configuration to be had; whoever runs the proxy knows whether it is in force.
"""

from collections.abc import Iterable

from gwanmun.api import Gateway, ListenerSet
from gwanmun.memo import Query
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.acceptance import addresses, gateway_spec, refusal
from gwanmun.resolve.listener import gateway_of, verdicts
from gwanmun.resolve.listenerset import allowed_sets, set_allowed
from gwanmun.resolve.member import Place, members
from gwanmun.resolve.status import Condition, GatewayStatus, ListenerSetStatus, ListenerStatus
from gwanmun.resolve.tls import Unresolved, client_certificate, insecure_ports
from gwanmun.resolve.verdict import Verdict
from gwanmun.resolve.world import read


def gateway_status(q: Query, key: ObjectKey) -> GatewayStatus | None:
    """The status of a Gateway that is ours."""
    obj, gateway = read(q, key, Gateway), key.namespaced_name
    if obj is None or q.get(gateway_spec, gateway) is None:
        return None
    accepted = _gateway_accepted(q, gateway)
    conditions = (accepted, _gateway_programmed(q, gateway, accepted), _gateway_resolved(q, key), *_insecure(q, gateway))
    attached_sets = sum(q.get(set_accepted, listener_set) for listener_set in q.get(allowed_sets, gateway))
    return GatewayStatus(obj.metadata.generation, conditions, q.get(listener_statuses, key), attached_sets)


def listenerset_status(q: Query, key: ObjectKey) -> ListenerSetStatus | None:
    """The status of a ListenerSet whose Gateway is ours."""
    obj, gateway = read(q, key, ListenerSet), q.get(gateway_of, key)
    if obj is None or gateway is None:
        return None
    generation = obj.metadata.generation
    if not q.get(set_allowed, gateway, key):
        message = f"spec.allowedListeners of Gateway {gateway} does not let in ListenerSets of namespace {key.namespace}"
        return ListenerSetStatus(generation, _refused("NotAllowed", "NotAllowed", message), ())
    if q.get(refusal, gateway) is not None:
        message = f"Gateway {gateway} is not accepted"
        return ListenerSetStatus(generation, _refused("ParentNotAccepted", "ParentNotProgrammed", message), ())
    own = _own_verdicts(q, key, gateway)
    message = _what_is_wrong(own)
    if not any(verdict.listener.valid for verdict in own):
        conditions = _refused("ListenersNotValid", "ListenersNotValid", message)
    else:
        reason = "ListenersNotValid" if message else "Accepted"
        conditions = (Condition("Accepted", True, reason, message), Condition("Programmed", True, "Programmed"))
    return ListenerSetStatus(generation, conditions, q.get(listener_statuses, key))


def set_accepted(q: Query, key: ObjectKey) -> bool:
    """Whether a ListenerSet is attached to its Gateway: let in, and with a listener that can serve."""
    status = q.get(listenerset_status, key)
    return status is not None and status.conditions[0].status is True


def listener_statuses(q: Query, owner: ObjectKey) -> tuple[ListenerStatus, ...]:
    """The status of each listener of a Gateway or ListenerSet, in the order of its spec."""
    gateway = q.get(gateway_of, owner)
    if gateway is None:
        return ()
    return tuple(
        ListenerStatus(
            name=verdict.listener.key.name,
            supported_kinds=verdict.listener.kinds,
            attached_routes=q.get(attached_count, Place(gateway, verdict.listener.key)),
            conditions=verdict.conditions,
        )
        for verdict in _own_verdicts(q, owner, gateway)
    )


def attached_count(q: Query, place: Place) -> int:
    """How many routes are attached to a listener, those included whose place an older one has (TCP, UDP)."""
    return len(q.get(members, place.listener))


def _own_verdicts(q: Query, owner: ObjectKey, gateway: NamespacedName) -> list[Verdict]:
    return [verdict for key, verdict in q.get(verdicts, gateway).items() if key.owner == owner]


def _gateway_accepted(q: Query, gateway: NamespacedName) -> Condition:
    """Listeners of ListenerSets count as well: the Gateway is seen as having them all."""
    refused = q.get(refusal, gateway)
    if refused is not None:
        return refused
    judged = q.get(verdicts, gateway).values()
    message = _what_is_wrong(verdict for verdict in judged if verdict.listener.key.owner.kind == "Gateway")
    if not any(verdict.conditions[0].status for verdict in judged):
        return Condition("Accepted", False, "ListenersNotValid", message or "there is no listener")
    return Condition("Accepted", True, "ListenersNotValid" if message else "Accepted", message)


def _gateway_programmed(q: Query, gateway: NamespacedName, accepted: Condition) -> Condition:
    if accepted.status is not True:
        return Condition("Programmed", False, "Invalid", "the Gateway is not accepted")
    _, unusable = q.get(addresses, gateway)
    if unusable:
        listed = ", ".join(f'"{value}"' for value in unusable)
        return Condition("Programmed", False, "AddressNotUsable", f"spec.addresses: {listed} is no IP address")
    if not any(verdict.listener.valid for verdict in q.get(verdicts, gateway).values()):
        return Condition("Programmed", False, "Invalid", "no listener can serve")
    return Condition("Programmed", True, "Programmed")


def _gateway_resolved(q: Query, key: ObjectKey) -> Condition:
    client = q.get(client_certificate, key.namespaced_name)
    if isinstance(client, Unresolved):
        return Condition("ResolvedRefs", False, client.reason, f"spec.tls.backend.clientCertificateRef: {client.message}")
    unresolved = [
        verdict.listener.key.name
        for verdict in _own_verdicts(q, key, key.namespaced_name)
        if any(condition.type == "ResolvedRefs" and condition.status is False for condition in verdict.conditions)
    ]
    if unresolved:
        return Condition("ResolvedRefs", False, "ListenersNotResolved", f"see the listeners {', '.join(unresolved)}")
    return Condition("ResolvedRefs", True, "ResolvedRefs")


def _insecure(q: Query, gateway: NamespacedName) -> tuple[Condition, ...]:
    places = q.get(insecure_ports, gateway)
    if not places:
        return ()
    message = f"clients without a valid certificate are let in by spec.tls.frontend: {', '.join(places)}"
    return (Condition("InsecureFrontendValidationMode", True, "ConfigurationChanged", message),)


def _what_is_wrong(judged: Iterable[Verdict]) -> str:
    """The listeners that cannot serve, empty where all can; each one's conditions say why."""
    broken = [verdict.listener.key.name for verdict in judged if not verdict.listener.valid]
    return f"not served: {', '.join(broken)}" if broken else ""


def _refused(accepted: str, programmed: str, message: str) -> tuple[Condition, ...]:
    return Condition("Accepted", False, accepted, message), Condition("Programmed", False, programmed, message)
