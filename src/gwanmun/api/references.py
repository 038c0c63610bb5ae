"""References from one Gateway API object to another, and the status that routes keep per parent.

Group, kind and namespace are kept as written: whether a reference is allowed and resolves is for `resolve` to say.
"""

from typing import Any

from gwanmun.api.meta import ApiStruct, Condition

GATEWAY_GROUP = "gateway.networking.k8s.io"


class ParentReference(ApiStruct, frozen=True):
    """spec.parentRefs[] of a route or spec.parentRef of a ListenerSet. `namespace` None means the object's own."""

    name: str
    group: str = GATEWAY_GROUP
    kind: str = "Gateway"
    namespace: str | None = None
    section_name: str | None = None
    port: int | None = None


class BackendObjectReference(ApiStruct, frozen=True):
    """Where traffic goes: a Service unless `group` and `kind` say otherwise. `namespace` None means the route's own."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    port: int | None = None


class BackendRef(BackendObjectReference, frozen=True):
    """A backend with its share of the rule's traffic; weight 0 receives none."""

    weight: int = 1


class SecretObjectReference(ApiStruct, frozen=True):
    """A certificate, a Secret unless said otherwise. `namespace` None means the referring object's own."""

    name: str
    group: str = ""
    kind: str = "Secret"
    namespace: str | None = None


class ObjectReference(ApiStruct, frozen=True):
    """Any object, possibly in another namespace (None: the referring object's own)."""

    name: str
    group: str
    kind: str
    namespace: str | None = None


class LocalObjectReference(ApiStruct, frozen=True):
    """Any object of the referring object's own namespace."""

    name: str
    group: str
    kind: str


class PolicyTargetReference(ApiStruct, frozen=True):
    """spec.targetRefs[] of a policy: an object of its namespace, or the part of it that `section_name` names."""

    name: str
    group: str
    kind: str
    section_name: str | None = None


class RouteParentStatus(ApiStruct, frozen=True):
    """status.parents[] of a route: what one controller says about the route under one parent."""

    parent_ref: ParentReference
    controller_name: str
    conditions: tuple[Condition, ...] = ()


class RouteStatus(ApiStruct, frozen=True):
    """status of every route kind."""

    parents: tuple[RouteParentStatus, ...] = ()


class PolicyAncestorStatus(ApiStruct, frozen=True):
    """status.ancestors[] of a policy: what one controller says about the policy under one ancestor."""

    ancestor_ref: ParentReference
    controller_name: str
    conditions: tuple[Condition, ...] = ()


class PolicyStatus(ApiStruct, frozen=True):
    """status of every policy kind."""

    ancestors: tuple[PolicyAncestorStatus, ...] = ()


LooseStatus = dict[str, Any]
"""Status of kinds whose status gwanmun never reads back."""
