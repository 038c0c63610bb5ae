"""Listeners, shared by Gateway and ListenerSet: port, protocol, certificate, and which routes may attach."""

import msgspec

from gwanmun.api.meta import ApiStruct, Condition, LabelSelector
from gwanmun.api.references import GATEWAY_GROUP, SecretObjectReference


class RouteGroupKind(ApiStruct, frozen=True):
    """A route kind, in allowedRoutes.kinds and in status.listeners[].supportedKinds."""

    kind: str
    group: str = GATEWAY_GROUP


class RouteNamespaces(ApiStruct, frozen=True):
    """allowedRoutes.namespaces: `from_` is All, Selector or Same; the selector counts only with Selector."""

    from_: str = msgspec.field(default="Same", name="from")
    selector: LabelSelector | None = None


class AllowedRoutes(ApiStruct, frozen=True):
    """Which routes may attach. Empty `kinds` means every kind the listener's protocol can serve."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteGroupKind, ...] = ()


class ListenerTLSConfig(ApiStruct, frozen=True):
    """tls of a listener. `mode` is Terminate or Passthrough; options are the implementation's own keys."""

    mode: str = "Terminate"
    certificate_refs: tuple[SecretObjectReference, ...] = ()
    options: dict[str, str] = msgspec.field(default_factory=dict)


class Listener(ApiStruct, frozen=True):
    """One listener of a Gateway or a ListenerSet. `hostname` None accepts every host name."""

    name: str
    port: int
    protocol: str
    hostname: str | None = None
    tls: ListenerTLSConfig | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class ListenerStatus(ApiStruct, frozen=True):
    """status.listeners[] of a Gateway or a ListenerSet."""

    name: str
    supported_kinds: tuple[RouteGroupKind, ...] = ()
    attached_routes: int = 0
    conditions: tuple[Condition, ...] = ()
