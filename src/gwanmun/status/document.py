"""A status value as the `status` of a Kubernetes object: plain data with the API's field names.

`lastTransitionTime` is absent: only the writer that compares with what was there knows when a condition changed.
"""

from typing import Any, assert_never

from gwanmun.resolve.status import (
    Condition,
    GatewayClassStatus,
    GatewayStatus,
    ListenerSetStatus,
    ListenerStatus,
    ObjectConditions,
    ParentRef,
    ParentStatus,
    PolicyStatus,
    RouteStatus,
    Status,
)

_STATUS = {True: "True", False: "False", None: "Unknown"}


def status_document(status: Status) -> dict[str, Any]:
    """The `status` field of the object that `status` is about."""
    generation = status.generation
    match status:
        case RouteStatus(parents=parents):
            return {"parents": [_parent("parentRef", parent, generation) for parent in parents]}
        case PolicyStatus(ancestors=ancestors):
            return {"ancestors": [_parent("ancestorRef", ancestor, generation) for ancestor in ancestors]}
        case GatewayStatus(conditions=conditions, listeners=listeners):
            document = _with_listeners(conditions, listeners, generation)
            if status.attached_listener_sets is not None:
                document["attachedListenerSets"] = status.attached_listener_sets
            return document
        case ListenerSetStatus(conditions=conditions, listeners=listeners):
            return _with_listeners(conditions, listeners, generation)
        case GatewayClassStatus(conditions=conditions, supported_features=features):
            return {
                "conditions": _conditions(conditions, generation),
                "supportedFeatures": [{"name": name} for name in features],
            }
        case ObjectConditions(conditions=conditions):
            return {"conditions": _conditions(conditions, generation)}
        case _:
            assert_never(status)


def _with_listeners(
    conditions: tuple[Condition, ...], listeners: tuple[ListenerStatus, ...], generation: int
) -> dict[str, Any]:
    return {
        "conditions": _conditions(conditions, generation),
        "listeners": [
            {
                "name": listener.name,
                "supportedKinds": [{"group": group, "kind": kind} for group, kind in listener.supported_kinds],
                "attachedRoutes": listener.attached_routes,
                "conditions": _conditions(listener.conditions, generation),
            }
            for listener in listeners
        ],
    }


def _parent(field: str, status: ParentStatus, generation: int) -> dict[str, Any]:
    return {
        field: _ref(status.parent_ref),
        "controllerName": status.controller_name,
        "conditions": _conditions(status.conditions, generation),
    }


def _ref(ref: ParentRef) -> dict[str, Any]:
    document = {
        "group": ref.group,
        "kind": ref.kind,
        "namespace": ref.namespace,
        "name": ref.name,
        "sectionName": ref.section_name,
        "port": ref.port,
    }
    return {name: value for name, value in document.items() if value is not None}


def _conditions(conditions: tuple[Condition, ...], generation: int) -> list[dict[str, Any]]:
    return [
        {
            "type": condition.type,
            "status": _STATUS[condition.status],
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": generation,
        }
        for condition in conditions
    ]
