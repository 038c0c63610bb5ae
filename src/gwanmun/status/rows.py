"""Statuses as rows for people: one for each object, listener and parent, with what is wrong spelled out."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, assert_never

from gwanmun.names import ObjectKey
from gwanmun.resolve.status import (
    Condition,
    GatewayClassStatus,
    GatewayStatus,
    ListenerSetStatus,
    ObjectConditions,
    ParentRef,
    PolicyStatus,
    RouteStatus,
    Status,
    Statuses,
)

GOOD_WHEN_FALSE = frozenset({"Conflicted", "PartiallyInvalid", "OverlappingTLSConfig"})
ADVICE_ONLY = frozenset({"OverlappingTLSConfig"})  # worth knowing, nothing is refused


@dataclass(frozen=True, slots=True)
class StatusRow:
    """`part` is a listener's name or a route's parent, empty for the object as a whole. `details` are the messages of
    conditions that are not as they should be."""

    kind: str
    namespace: str
    name: str
    part: str
    healthy: bool
    conditions: tuple[tuple[str, str], ...]  # type, "True" | "False" | "Unknown"
    details: tuple[str, ...] = ()
    attached_routes: int | None = None


def healthy(condition: Condition) -> bool:
    """Whether a condition says that all is well."""
    return condition.type in ADVICE_ONLY or condition.status is (condition.type not in GOOD_WHEN_FALSE)


def row_document(row: StatusRow) -> dict[str, Any]:
    """A row as plain data, for programs."""
    return {**asdict(row), "conditions": dict(row.conditions), "details": list(row.details)}


def rows(statuses: Statuses) -> list[StatusRow]:
    """In order of kind and name, each object's parts after it."""
    return [row for key in sorted(statuses, key=_order) for row in _rows(key, statuses[key])]


_KINDS = (
    "GatewayClass",
    "GatewayClassConfig",
    "Gateway",
    "ListenerSet",
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
)


def _order(key: ObjectKey) -> tuple[int, str, str, str]:
    return _KINDS.index(key.kind) if key.kind in _KINDS else len(_KINDS), key.kind, key.namespace, key.name


def _rows(key: ObjectKey, status: Status) -> Iterator[StatusRow]:
    match status:
        case RouteStatus(parents=parents) | PolicyStatus(ancestors=parents):
            for parent in parents:
                yield status_row(key, _parent(parent.parent_ref), parent.conditions)
        case (
            GatewayStatus(conditions=conditions, listeners=listeners)
            | ListenerSetStatus(conditions=conditions, listeners=listeners)
        ):
            yield status_row(key, "", conditions)
            for listener in listeners:
                yield status_row(key, listener.name, listener.conditions, listener.attached_routes)
        case GatewayClassStatus(conditions=conditions) | ObjectConditions(conditions=conditions):
            yield status_row(key, "", conditions)
        case _:
            assert_never(status)


def status_row(key: ObjectKey, part: str, conditions: Iterable[Condition], attached_routes: int | None = None) -> StatusRow:
    """The row of an object, or of one of its parts."""
    conditions = tuple(conditions)
    wrong = [condition for condition in conditions if not healthy(condition)]
    return StatusRow(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        part=part,
        healthy=not wrong,
        conditions=tuple(
            (condition.type, {True: "True", False: "False", None: "Unknown"}[condition.status]) for condition in conditions
        ),
        details=tuple(f"{condition.type}: {condition.reason}: {condition.message}" for condition in wrong),
        attached_routes=attached_routes,
    )


def _parent(ref: ParentRef) -> str:
    text = f"{ref.kind} {ref.name}"
    if ref.section_name:
        text += f"#{ref.section_name}"
    return f"{text}:{ref.port}" if ref.port else text
