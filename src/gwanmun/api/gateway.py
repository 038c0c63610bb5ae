"""Gateway: listeners, addresses, TLS towards clients and backends, and hints for the proxies behind it."""

from typing import ClassVar

import msgspec

from gwanmun.api.listener import Listener, ListenerStatus
from gwanmun.api.meta import ApiStruct, Condition, LabelSelector, ManagedMeta
from gwanmun.api.references import GATEWAY_GROUP, LocalObjectReference, ObjectReference, SecretObjectReference


class GatewayAddress(ApiStruct, frozen=True):
    """An address: `type` is IPAddress, Hostname, NamedAddress or a domain-prefixed word; no value asks for any."""

    type: str = "IPAddress"
    value: str | None = None


class GatewayInfrastructure(ApiStruct, frozen=True):
    """Labels and annotations that every object created for the Gateway must carry, and its own parameters."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    parameters_ref: LocalObjectReference | None = None


class ListenerNamespaces(ApiStruct, frozen=True):
    """allowedListeners.namespaces: `from_` is All, Selector, Same or None (the default)."""

    from_: str = msgspec.field(default="None", name="from")
    selector: LabelSelector | None = None


class AllowedListeners(ApiStruct, frozen=True):
    """Which ListenerSets may attach to the Gateway."""

    namespaces: ListenerNamespaces = ListenerNamespaces()


class FrontendTLSValidation(ApiStruct, frozen=True):
    """How client certificates are checked. `mode` is AllowValidOnly or AllowInsecureFallback."""

    ca_certificate_refs: tuple[ObjectReference, ...]
    mode: str = "AllowValidOnly"


class TLSConfig(ApiStruct, frozen=True):
    """TLS towards clients; no validation means that no client certificate is asked for."""

    validation: FrontendTLSValidation | None = None


class TLSPortConfig(ApiStruct, frozen=True):
    """TLS towards clients on one port, in place of the default."""

    port: int
    tls: TLSConfig


class FrontendTLSConfig(ApiStruct, frozen=True):
    """spec.tls.frontend: for all HTTPS listeners, and by port."""

    default: TLSConfig
    per_port: tuple[TLSPortConfig, ...] = ()


class GatewayBackendTLS(ApiStruct, frozen=True):
    """spec.tls.backend: the client certificate that the Gateway shows to TLS backends."""

    client_certificate_ref: SecretObjectReference | None = None


class GatewayTLSConfig(ApiStruct, frozen=True):
    """spec.tls of a Gateway."""

    backend: GatewayBackendTLS | None = None
    frontend: FrontendTLSConfig | None = None


class GatewaySpec(ApiStruct, frozen=True):
    """spec of a Gateway."""

    gateway_class_name: str
    listeners: tuple[Listener, ...] = ()
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: GatewayInfrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTLSConfig | None = None
    default_scope: str | None = None


class GatewayStatus(ApiStruct, frozen=True):
    """status of a Gateway."""

    addresses: tuple[GatewayAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    listeners: tuple[ListenerStatus, ...] = ()
    attached_listener_sets: int | None = None


class Gateway(ApiStruct, frozen=True):
    """gateway.networking.k8s.io Gateway."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "Gateway"

    metadata: ManagedMeta
    spec: GatewaySpec
    status: GatewayStatus = GatewayStatus()
    api_version: str = ""
