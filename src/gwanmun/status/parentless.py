"""What stands on an object of ours whose parent does not exist (any more): a ListenerSet without its Gateway. Pure.

`resolve` says nothing about such objects, as they may be anybody's, and their status does not say who wrote it. What was true
once would stand there for ever. Deliberately absent: whether they are ours (the API server knows who wrote their status).
"""

from collections.abc import Callable
from typing import Any

from gwanmun.api import Gateway, ListenerSet, Object
from gwanmun.names import ObjectKey
from gwanmun.resources import Snapshot
from gwanmun.resources.snapshot import GATEWAY_GROUP

Document = dict[str, Any]


def parentless(named: Object | None, snapshot: Snapshot, unseen: Callable[[ObjectKey], bool]) -> Document | None:
    """The status document of an object without a parent; None where it has one, or may have one that is `unseen` here."""
    if not isinstance(named, ListenerSet):
        return None
    gateway = _gateway_of(named)
    if gateway is None or snapshot.get(gateway) is not None or unseen(gateway):
        return None
    message = f"spec.parentRef: Gateway {gateway.namespaced_name} does not exist; its listeners are served by nobody"
    conditions = [
        _condition(named, "Accepted", "False", "ParentNotAccepted", message),
        _condition(named, "Programmed", "False", "ParentNotProgrammed", message),
    ]
    return {"conditions": conditions, "listeners": []}


def _gateway_of(listener_set: ListenerSet) -> ObjectKey | None:
    parent = listener_set.spec.parent_ref
    if (parent.group, parent.kind) != (GATEWAY_GROUP, Gateway.KIND):
        return None
    return ObjectKey(GATEWAY_GROUP, Gateway.KIND, parent.namespace or listener_set.metadata.namespace, parent.name)


def _condition(on: ListenerSet, type_: str, status: str, reason: str, message: str) -> Document:
    generation = on.metadata.generation
    return {"type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": generation}
