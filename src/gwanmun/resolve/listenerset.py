"""ListenerSets: which Gateway they extend, whether it lets them, and in which order.

Absent on purpose: their listeners' fate (`listener`) and their status (`gatewaystatus`).
"""

from gwanmun.api import ListenerSet
from gwanmun.api.listener import Listener
from gwanmun.memo import Query
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.acceptance import gateway_key, gateway_spec
from gwanmun.resolve.namespace import namespace_allowed, namespace_rule
from gwanmun.resolve.types import NamespaceRule
from gwanmun.resolve.world import find, read
from gwanmun.resources.snapshot import GATEWAY_GROUP


def set_parent(q: Query, key: ObjectKey) -> NamespacedName | None:
    """The Gateway that a ListenerSet names, whether or not there is one."""
    obj = read(q, key, ListenerSet)
    if obj is None or (obj.spec.parent_ref.group, obj.spec.parent_ref.kind) != (GATEWAY_GROUP, "Gateway"):
        return None
    return NamespacedName(obj.spec.parent_ref.namespace or key.namespace, obj.spec.parent_ref.name)


def set_listeners(q: Query, key: ObjectKey) -> tuple[Listener, ...]:
    """The listeners of a ListenerSet as written."""
    obj = read(q, key, ListenerSet)
    return obj.spec.listeners if obj is not None else ()


def set_age(q: Query, key: ObjectKey) -> tuple[bool, str, str, str]:
    """Where a ListenerSet stands among those of one Gateway: oldest first (unknown age last), then by name."""
    obj = read(q, key, ListenerSet)
    created = (obj.metadata.creation_timestamp or "") if obj is not None else ""
    return (created == "", created, key.namespace, key.name)


def listener_rule(q: Query, gateway: NamespacedName) -> NamespaceRule:
    """allowedListeners of a Gateway: which namespaces' ListenerSets it lets in, none by default."""
    spec = q.get(gateway_spec, gateway)
    if spec is None or spec.allowed_listeners is None:
        return NamespaceRule("None")
    namespaces = spec.allowed_listeners.namespaces
    rule, _ = namespace_rule(namespaces.from_, namespaces.selector, "spec.allowedListeners.namespaces")
    return rule


def set_allowed(q: Query, gateway: NamespacedName, key: ObjectKey) -> bool:
    """Whether the Gateway lets the ListenerSet in."""
    return namespace_allowed(q, q.get(listener_rule, gateway), own=gateway.namespace, namespace=key.namespace)


def allowed_sets(q: Query, gateway: NamespacedName) -> tuple[ObjectKey, ...]:
    """The ListenerSets that the Gateway lets in, in order of precedence."""
    sets = [key for key in find(q, "gateway", gateway_key(gateway)) if q.get(set_allowed, gateway, key)]
    return tuple(sorted(sets, key=lambda key: q.get(set_age, key)))
