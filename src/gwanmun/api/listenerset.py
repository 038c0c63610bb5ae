"""ListenerSet: listeners that another team adds to a Gateway."""

from typing import ClassVar

from gwanmun.api.listener import Listener, ListenerStatus
from gwanmun.api.meta import ApiStruct, Condition, ManagedMeta
from gwanmun.api.references import GATEWAY_GROUP, ParentReference


class ListenerSetSpec(ApiStruct, frozen=True):
    """spec of a ListenerSet; parentRef never has a sectionName or a port."""

    parent_ref: ParentReference
    listeners: tuple[Listener, ...]


class ListenerSetStatus(ApiStruct, frozen=True):
    """status of a ListenerSet."""

    conditions: tuple[Condition, ...] = ()
    listeners: tuple[ListenerStatus, ...] = ()


class ListenerSet(ApiStruct, frozen=True):
    """gateway.networking.k8s.io ListenerSet."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "ListenerSet"

    metadata: ManagedMeta
    spec: ListenerSetSpec
    status: ListenerSetStatus = ListenerSetStatus()
    api_version: str = ""
