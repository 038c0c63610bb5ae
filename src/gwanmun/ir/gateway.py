"""Gateways: ports, the listeners on them, and the whole model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

from gwanmun.ir.backend import Backend, Certificate, Endpoints
from gwanmun.ir.route import Host, L4Rule
from gwanmun.names import CertificateKey, ClusterKey, ListenerKey, NamespacedName


@dataclass(frozen=True, slots=True)
class ClientValidation:
    """Certificates of clients. `pem` holds the authorities; `required` False lets everyone in (AllowInsecureFallback)."""

    pem: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class TlsTermination:
    certificates: tuple[CertificateKey, ...]
    client_validation: ClientValidation | None = None
    options: tuple[tuple[str, str], ...] = ()


MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """Where the model's name is read from the body: the header that it becomes, and the largest body that is read."""

    model_header: str = "x-model-id"
    max_request_bytes: int = MAX_REQUEST_BYTES


@dataclass(frozen=True, slots=True)
class HttpListener:
    """`hostname` is `*`, a wildcard or an exact host. `tls` None is plain HTTP.

    `hosts` holds only what belongs to this listener: where several share a port each host is on the most specific one
    (listener isolation), and the listener's own hostname is there even without rules, so that no other takes its traffic.
    `misdirected` are hosts of the other listeners of this port: asked for over this one's TLS, they answer 421.
    `inference` is None where no rule looks at the model. `max_request_bytes` is the largest body that is held for any reason.
    """

    key: ListenerKey
    hostname: str
    hosts: Mapping[str, Host] = field(default_factory=dict)
    tls: TlsTermination | None = None
    misdirected: tuple[str, ...] = ()
    inference: InferenceSettings | None = None
    max_request_bytes: int = MAX_REQUEST_BYTES


@dataclass(frozen=True, slots=True)
class TlsListener:
    """TLS by server name: passed through where `tls` is None, else terminated and the plain bytes forwarded."""

    key: ListenerKey
    hostname: str
    rules: tuple[L4Rule, ...] = ()
    tls: TlsTermination | None = None


@dataclass(frozen=True, slots=True)
class TcpListener:
    key: ListenerKey
    rule: L4Rule | None = None


@dataclass(frozen=True, slots=True)
class UdpListener:
    key: ListenerKey
    rule: L4Rule | None = None


Listener = HttpListener | TlsListener | TcpListener | UdpListener


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a Gateway: plain HTTP listeners, or HTTPS and TLS ones together, or one TCP or UDP listener."""

    number: int
    transport: Literal["tcp", "udp"]
    listeners: tuple[Listener, ...]


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Limits of every connection: of the whole gateway (`max_connections`), to backends, and idle ones.

    `idle_timeout` None leaves it to the proxy; zero keeps idle connections for ever.
    """

    max_connections: int | None = None
    connect_timeout: timedelta = timedelta(seconds=10)
    idle_timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """`addresses` are those asked for (spec.addresses); empty leaves the choice to whoever runs the proxy."""

    key: NamespacedName
    ports: tuple[Port, ...] = ()
    addresses: tuple[str, ...] = ()
    connections: ConnectionSettings = field(default_factory=ConnectionSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that is served, by key. A Gateway's proxies need what its rules name, transitively."""

    gateways: Mapping[NamespacedName, Gateway] = field(default_factory=dict)
    backends: Mapping[ClusterKey, Backend] = field(default_factory=dict)
    endpoints: Mapping[ClusterKey, Endpoints] = field(default_factory=dict)
    certificates: Mapping[CertificateKey, Certificate] = field(default_factory=dict)
