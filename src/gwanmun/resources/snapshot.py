"""`Snapshot`: all objects by key, and indexes over them.

`apply` gives a new snapshot and the keys of what may read differently now: `ObjectKey` for objects, `IndexKey` for index
entries. These are the inputs of the memo graph in `resolve`. Nothing here judges what it holds.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gwanmun.api import Object
from gwanmun.names import ObjectKey

GATEWAY_GROUP = "gateway.networking.k8s.io"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
ANY_HOSTNAME = ""  # of a route that names no host
ROUTE_KINDS = frozenset({"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"})


class IndexKey(NamedTuple):
    """One entry of one index: which objects have `value` in the sense of the index (the names in `INDEXES`)."""

    name: str
    value: Hashable


def key_of(obj: Object) -> ObjectKey:
    """The identity of an object."""
    return ObjectKey(obj.GROUP, obj.KIND, obj.metadata.namespace, obj.metadata.name)


def _by_kind(key: ObjectKey, _: Any) -> Iterable[Hashable]:
    return ((key.group, key.kind),)


def _by_parent(key: ObjectKey, obj: Any) -> Iterable[Hashable]:
    """Routes, by each Gateway or ListenerSet that a parentRef names."""
    if key.kind not in ROUTE_KINDS:
        return ()
    return {ObjectKey(ref.group, ref.kind, ref.namespace or key.namespace, ref.name) for ref in obj.spec.parent_refs or ()}


def _by_rival(key: ObjectKey, obj: Any) -> Iterable[Hashable]:
    """HTTPRoutes and GRPCRoutes, by (parent, kind): the two must not share a host on one listener."""
    return {(parent, key.kind) for parent in _by_parent(key, obj)} if key.kind in ("HTTPRoute", "GRPCRoute") else ()


def _by_backend(key: ObjectKey, obj: Any) -> Iterable[Hashable]:
    """Routes, by each object that a backendRef or a mirror filter names."""
    if key.kind not in ROUTE_KINDS:
        return ()
    found = set()
    for rule in obj.spec.rules:
        mirrors = (entry.request_mirror.backend_ref for entry in getattr(rule, "filters", ()) if entry.request_mirror)
        for ref in (*rule.backend_refs, *mirrors):
            found.add(ObjectKey(ref.group, ref.kind, ref.namespace or key.namespace, ref.name))
    return found


def _by_host(key: ObjectKey, obj: Any) -> Iterable[Hashable]:
    """HTTPRoutes and GRPCRoutes, by (parent, hostname as written but in lower case, ANY_HOSTNAME where there is none)."""
    if key.kind not in ("HTTPRoute", "GRPCRoute"):
        return ()
    names = {name.lower() for name in obj.spec.hostnames} or {ANY_HOSTNAME}
    return {(parent, name) for parent in _by_parent(key, obj) for name in names}


def _by_gateway(key: ObjectKey, obj: Any) -> Iterable[Hashable]:
    """ListenerSets, by the Gateway that they extend."""
    if key.kind != "ListenerSet":
        return ()
    ref = obj.spec.parent_ref
    return (ObjectKey(ref.group, ref.kind, ref.namespace or key.namespace, ref.name),)


def _by_class(key: ObjectKey, obj: Any) -> Iterable[Hashable]:
    """Gateways, by the name of their GatewayClass."""
    return (obj.spec.gateway_class_name,) if key.kind == "Gateway" else ()


def _by_service(key: ObjectKey, obj: Any) -> Iterable[Hashable]:
    """EndpointSlices, by (namespace, Service name)."""
    if key.kind != "EndpointSlice":
        return ()
    service = (obj.metadata.labels or {}).get(SERVICE_NAME_LABEL)
    return ((key.namespace, service),) if service else ()


def _by_pod_namespace(key: ObjectKey, _: Any) -> Iterable[Hashable]:
    """Pods, by namespace. Not by label: pods have many that nothing selects by, and each would be an entry to keep."""
    return (key.namespace,) if key.kind == "Pod" else ()


def _by_picker(key: ObjectKey, obj: Any) -> Iterable[Hashable]:
    """InferencePools, by the object that picks their endpoints (always in their own namespace)."""
    if key.kind != "InferencePool" or obj.spec.endpoint_picker_ref is None:
        return ()
    ref = obj.spec.endpoint_picker_ref
    return (ObjectKey(ref.group, ref.kind, key.namespace, ref.name),)


def _grants(key: ObjectKey, _: Any) -> Iterable[Hashable]:
    """ReferenceGrants, by the namespace that grants."""
    return (key.namespace,) if key.kind == "ReferenceGrant" else ()


def _by_target(key: ObjectKey, obj: Any) -> Iterable[Hashable]:
    """Policies, by each object that a targetRef names (always in their own namespace)."""
    if key.kind != "BackendTLSPolicy":
        return ()
    return {ObjectKey(ref.group, ref.kind, key.namespace, ref.name) for ref in obj.spec.target_refs}


INDEXES: Mapping[str, Callable[[ObjectKey, Any], Iterable[Hashable]]] = {
    "kind": _by_kind,
    "parent": _by_parent,
    "rival": _by_rival,
    "host": _by_host,
    "backendref": _by_backend,
    "gateway": _by_gateway,
    "class": _by_class,
    "service": _by_service,
    "pods": _by_pod_namespace,
    "picker": _by_picker,
    "grants": _grants,
    "target": _by_target,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    objects: Mapping[ObjectKey, Object] = field(default_factory=dict)
    indexes: Mapping[IndexKey, tuple[ObjectKey, ...]] = field(default_factory=dict)

    def get(self, key: ObjectKey) -> Object | None:
        """The object, or None where there is none."""
        return self.objects.get(key)

    def find(self, key: IndexKey) -> tuple[ObjectKey, ...]:
        """The objects under an index entry, sorted."""
        return self.indexes.get(key, ())

    def apply(self, changes: Mapping[ObjectKey, Object | None]) -> tuple["Snapshot", frozenset[Hashable]]:
        """The snapshot with these objects put (or, where None, taken away), and the keys that may read differently."""
        objects = dict(self.objects)
        touched: dict[IndexKey, list[ObjectKey]] = {}
        changed: set[Hashable] = set()
        for key, new in changes.items():
            old = objects.get(key)
            if new == old:
                continue
            changed.add(key)
            before, after = _entries(key, old), _entries(key, new)
            for entry in before ^ after:
                members = touched.get(entry)
                if members is None:
                    members = touched[entry] = list(self.indexes.get(entry, ()))
                place = bisect_left(members, key)
                if entry in after:
                    members.insert(place, key)
                else:
                    del members[place]
            if new is None:
                del objects[key]
            else:
                objects[key] = new
        if not changed:
            return self, frozenset()
        indexes = self.indexes
        if touched:
            indexes = {**self.indexes, **{entry: tuple(members) for entry, members in touched.items() if members}}
            for entry, members in touched.items():
                if not members:
                    indexes.pop(entry, None)
        return Snapshot(objects, indexes), frozenset(changed | touched.keys())


def _entries(key: ObjectKey, obj: Object | None) -> set[IndexKey]:
    if obj is None:
        return set()
    return {IndexKey(name, value) for name, values in INDEXES.items() for value in values(key, obj)}
