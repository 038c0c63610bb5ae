"""discovery.k8s.io EndpointSlice: the addresses behind a Service, their zone and topology hints."""

from typing import ClassVar

from gwanmun.api.meta import ApiStruct, ObjectMeta

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""The label by which an EndpointSlice belongs to a Service of its namespace."""


class EndpointConditions(ApiStruct, frozen=True):
    """None means unknown, which Kubernetes asks consumers to read as ready / serving / not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(ApiStruct, frozen=True):
    """A zone that should use the endpoint."""

    name: str


class ForNode(ApiStruct, frozen=True):
    """A node that should use the endpoint."""

    name: str


class EndpointHints(ApiStruct, frozen=True):
    """Who should use the endpoint, as the topology controller computed it."""

    for_zones: tuple[ForZone, ...] | None = None
    for_nodes: tuple[ForNode, ...] | None = None


class TargetReference(ApiStruct, frozen=True):
    """The object behind an endpoint, a Pod as a rule."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""


class Endpoint(ApiStruct, frozen=True):
    """One endpoint; its addresses are fungible, so the first one is used."""

    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None
    target_ref: TargetReference | None = None


class EndpointPort(ApiStruct, frozen=True):
    """A port that every endpoint of the slice has; `name` is the name of the Service port."""

    name: str | None = None
    protocol: str = "TCP"
    port: int | None = None
    app_protocol: str | None = None


class EndpointSlice(ApiStruct, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice. The API server writes empty lists as null, so both lists may be None."""

    GROUP: ClassVar[str] = "discovery.k8s.io"
    KIND: ClassVar[str] = "EndpointSlice"

    metadata: ObjectMeta
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()
    api_version: str = ""
