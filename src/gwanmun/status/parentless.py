"""What stands on an object of ours whose parent does not exist (any more): a Gateway without its GatewayClass, a ListenerSet
without its Gateway. Pure.

`resolve` says nothing about such objects, as they may be anybody's, and their status does not say who wrote it. What was true
once would stand there for ever. Deliberately absent: whether they are ours (the API server knows who wrote their status).
"""

from collections.abc import Callable
from typing import Any

from gwanmun.api import Gateway, GatewayClass, ListenerSet, Object
from gwanmun.names import ObjectKey
from gwanmun.resources import Snapshot
from gwanmun.resources.snapshot import GATEWAY_GROUP

Document = dict[str, Any]


def parentless(named: Object | None, snapshot: Snapshot, unseen: Callable[[ObjectKey], bool]) -> Document | None:
    """The status document of an object without a parent; None where it has one, or may have one that is `unseen` here."""
    if isinstance(named, ListenerSet):
        key = _gateway_of(named)
        gateway = snapshot.get(key) if key is not None else None
        if key is not None and gateway is None:
            return None if unseen(key) else _without_gateway(named, key)
    else:
        gateway = named
    if not isinstance(named, Gateway | ListenerSet) or not isinstance(gateway, Gateway):
        return None
    key = ObjectKey(GATEWAY_GROUP, GatewayClass.KIND, "", gateway.spec.gateway_class_name)
    return None if snapshot.get(key) is not None or unseen(key) else _without_class(named, key.name)


def _gateway_of(listener_set: ListenerSet) -> ObjectKey | None:
    parent = listener_set.spec.parent_ref
    if (parent.group, parent.kind) != (GATEWAY_GROUP, Gateway.KIND):
        return None
    return ObjectKey(GATEWAY_GROUP, Gateway.KIND, parent.namespace or listener_set.metadata.namespace, parent.name)


def _without_gateway(listener_set: ListenerSet, gateway: ObjectKey) -> Document:
    message = f"spec.parentRef: Gateway {gateway.namespaced_name} does not exist; its listeners are served by nobody"
    conditions = [
        _condition(listener_set, "Accepted", "False", "ParentNotAccepted", message),
        _condition(listener_set, "Programmed", "False", "ParentNotProgrammed", message),
    ]
    return {"conditions": conditions, "listeners": []}


def _without_class(on: Gateway | ListenerSet, gateway_class: str) -> Document:
    """Proxies serve on with what they had, and are reached where they were: addresses and listeners stay as they are. Whether
    that is still what is wanted cannot be known."""
    message = (
        f"GatewayClass {gateway_class} does not exist; proxies that are there serve on with their last configuration. Make the "
        "class again, let spec.gatewayClassName of the Gateway name another one, or delete the Gateway"
    )
    return {"conditions": [_condition(on, type_, "Unknown", "Pending", message) for type_ in ("Accepted", "Programmed")]}


def _condition(on: Gateway | ListenerSet, type_: str, status: str, reason: str, message: str) -> Document:
    generation = on.metadata.generation
    return {"type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": generation}
