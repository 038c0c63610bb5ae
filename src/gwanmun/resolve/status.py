"""What is said back to the user about each object: conditions and the other fields of `status`, as values.

Condition types and reasons are the Gateway API's, verbatim. Who writes them where (an API server, a terminal) is not
known here; times are set by the writer, who alone knows when a condition changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gwanmun.names import ObjectKey


@dataclass(frozen=True, slots=True)
class Condition:
    """`status` is True, False or None for Unknown."""

    type: str
    status: bool | None
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ParentRef:
    """A parentRef as the user wrote it: unset fields stay None, so that the status entry can be matched to the spec's."""

    group: str
    kind: str
    name: str
    namespace: str | None = None
    section_name: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """One entry of a route's `status.parents`."""

    parent_ref: ParentRef
    controller_name: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class RouteStatus:
    generation: int
    parents: tuple[ParentStatus, ...]


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    name: str
    supported_kinds: tuple[tuple[str, str], ...]  # (group, kind)
    attached_routes: int
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """`Programmed` and `addresses` depend on the proxy too: whoever runs it completes them before they are written."""

    generation: int
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...]
    attached_listener_sets: int | None = None


@dataclass(frozen=True, slots=True)
class ListenerSetStatus:
    generation: int
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...]


@dataclass(frozen=True, slots=True)
class GatewayClassStatus:
    generation: int
    conditions: tuple[Condition, ...]
    supported_features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """A policy's `status.ancestors`: one entry for each Gateway that it takes part in."""

    generation: int
    ancestors: tuple[ParentStatus, ...]


@dataclass(frozen=True, slots=True)
class ObjectConditions:
    """The status of our own kinds (Backend, GatewayClassConfig): conditions alone."""

    generation: int
    conditions: tuple[Condition, ...]


Status = RouteStatus | GatewayStatus | ListenerSetStatus | GatewayClassStatus | PolicyStatus | ObjectConditions
Statuses = Mapping[ObjectKey, Status]


@dataclass(frozen=True, slots=True)
class Problem:
    """A user's mistake: where it is, which condition it turns False and why. The value that could still be built goes on."""

    subject: ObjectKey
    condition: str
    reason: str
    message: str
    path: str = field(default="")  # spec.rules[2].retry.backoff
