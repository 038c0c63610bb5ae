"""Routes below HTTP: TLSRoute (by SNI), TCPRoute and UDPRoute (by port). Their rules have backends and nothing else."""

from typing import ClassVar

from gwanmun.api.meta import ApiStruct, ObjectMeta
from gwanmun.api.references import GATEWAY_GROUP, BackendRef, ParentReference, RouteStatus


class L4RouteRule(ApiStruct, frozen=True):
    """One rule: where the connections (or datagrams) go."""

    name: str | None = None
    backend_refs: tuple[BackendRef, ...] = ()


class TLSRouteSpec(ApiStruct, frozen=True):
    """spec of a TLSRoute. `hostnames` are compared with the client's SNI (v1alpha2 may leave them out)."""

    parent_refs: tuple[ParentReference, ...] = ()
    use_default_gateways: str | None = None
    hostnames: tuple[str, ...] = ()
    rules: tuple[L4RouteRule, ...] = ()


class TLSRoute(ApiStruct, frozen=True):
    """gateway.networking.k8s.io TLSRoute."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "TLSRoute"

    metadata: ObjectMeta
    spec: TLSRouteSpec
    status: RouteStatus = RouteStatus()
    api_version: str = ""


class L4RouteSpec(ApiStruct, frozen=True):
    """spec of a TCPRoute or a UDPRoute."""

    parent_refs: tuple[ParentReference, ...] = ()
    use_default_gateways: str | None = None
    rules: tuple[L4RouteRule, ...] = ()


class TCPRoute(ApiStruct, frozen=True):
    """gateway.networking.k8s.io TCPRoute."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "TCPRoute"

    metadata: ObjectMeta
    spec: L4RouteSpec
    status: RouteStatus = RouteStatus()
    api_version: str = ""


class UDPRoute(ApiStruct, frozen=True):
    """gateway.networking.k8s.io UDPRoute."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "UDPRoute"

    metadata: ObjectMeta
    spec: L4RouteSpec
    status: RouteStatus = RouteStatus()
    api_version: str = ""
