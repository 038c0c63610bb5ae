"""GRPCRoute with every field of the experimental channel."""

from typing import ClassVar

from gwanmun.api.filters import HTTPHeaderFilter, HTTPRequestMirrorFilter, SessionPersistence
from gwanmun.api.meta import ApiStruct, ObjectMeta
from gwanmun.api.references import GATEWAY_GROUP, BackendRef, LocalObjectReference, ParentReference, RouteStatus


class GRPCMethodMatch(ApiStruct, frozen=True):
    """A gRPC service and method; `type` is Exact or RegularExpression. None matches any."""

    type: str = "Exact"
    service: str | None = None
    method: str | None = None


class GRPCHeaderMatch(ApiStruct, frozen=True):
    """`type` is Exact or RegularExpression."""

    name: str
    value: str
    type: str = "Exact"


class GRPCRouteMatch(ApiStruct, frozen=True):
    """All the conditions of one match; a rule applies when any of its matches holds."""

    method: GRPCMethodMatch | None = None
    headers: tuple[GRPCHeaderMatch, ...] = ()


class GRPCRouteFilter(ApiStruct, frozen=True):
    """One filter; `type` names the field that is set."""

    type: str
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    extension_ref: LocalObjectReference | None = None


class GRPCBackendRef(BackendRef, frozen=True):
    """A weighted backend with filters for its share of the requests only."""

    filters: tuple[GRPCRouteFilter, ...] = ()


class GRPCRouteRule(ApiStruct, frozen=True):
    """One rule. Empty `matches` means every request."""

    name: str | None = None
    matches: tuple[GRPCRouteMatch, ...] = ()
    filters: tuple[GRPCRouteFilter, ...] = ()
    backend_refs: tuple[GRPCBackendRef, ...] = ()
    session_persistence: SessionPersistence | None = None


class GRPCRouteSpec(ApiStruct, frozen=True):
    """spec of a GRPCRoute. Empty `hostnames` takes the listener's."""

    parent_refs: tuple[ParentReference, ...] = ()
    use_default_gateways: str | None = None
    hostnames: tuple[str, ...] = ()
    rules: tuple[GRPCRouteRule, ...] = ()


class GRPCRoute(ApiStruct, frozen=True):
    """gateway.networking.k8s.io GRPCRoute."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "GRPCRoute"

    metadata: ObjectMeta
    spec: GRPCRouteSpec
    status: RouteStatus = RouteStatus()
    api_version: str = ""
