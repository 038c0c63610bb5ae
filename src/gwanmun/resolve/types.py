"""What the two halves of resolve tell each other: a Gateway's listeners to routes, and routes' attachments to listeners."""

from dataclasses import dataclass
from typing import Literal

from gwanmun.names import ListenerKey, NamespacedName, ObjectKey
from gwanmun.resolve.status import Condition, ParentRef


@dataclass(frozen=True, slots=True)
class NamespaceRule:
    """allowedRoutes.namespaces. `selector` is a LabelSelector in canonical form, for `Selector` alone."""

    kind: Literal["Same", "All", "Selector", "None"]
    selector: "LabelSelector | None" = None


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All must hold: labels equal, and (key, operator, values) expressions."""

    match_labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[tuple[str, Literal["In", "NotIn", "Exists", "DoesNotExist"], tuple[str, ...]], ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels) and all(
            _holds(labels, key, operator, values) for key, operator, values in self.expressions
        )


def _holds(labels: dict[str, str], key: str, operator: str, values: tuple[str, ...]) -> bool:
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return (key in labels) == (operator == "Exists")


@dataclass(frozen=True, slots=True)
class RouteListener:
    """A listener as routes see it. Everything that depends on attached routes is deliberately absent.

    `hostname` is in lower case, `*` where the listener names none. `kinds` are (group, kind) that may attach. `valid` is
    False for listeners that cannot serve (conflicts, unsupported protocol): routes attach to them for status only.
    """

    key: ListenerKey
    gateway: NamespacedName
    protocol: str  # HTTP, HTTPS, TLS, TCP, UDP as written
    tls_mode: Literal["Terminate", "Passthrough"] | None
    port: int
    hostname: str
    kinds: tuple[tuple[str, str], ...]
    namespaces: NamespaceRule
    valid: bool


@dataclass(frozen=True, slots=True)
class Attachment:
    """One parentRef of a route, judged: the listeners that it is attached to with the hosts it has there.

    `hosts` are intersections of the route's hostnames with the listener's (`*` where neither names one); for TCP and UDP
    they are `("*",)`. `listeners` is empty exactly where `accepted` is not True. `gateway` is None where the parent is not
    ours (then nothing is said in status about it).
    """

    parent: ParentRef
    target: ObjectKey  # the Gateway or ListenerSet
    gateway: NamespacedName | None
    controller_name: str
    accepted: Condition
    listeners: tuple[tuple[ListenerKey, tuple[str, ...]], ...] = ()
