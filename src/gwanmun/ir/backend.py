"""Backends: what can be sent to, how it is spoken to, and where it is."""

from dataclasses import dataclass, field
from typing import Literal

from gwanmun.names import CertificateKey, ClusterKey

Prefer = Literal["zone", "node", "hints"]
"""Which endpoints are preferred: those of the proxy's zone, of its node and then its zone, or only as hints say. Hints count
more than zone and node where all endpoints have them, and hints for nodes more than those for zones."""


@dataclass(frozen=True, slots=True)
class SystemTrust:
    """The certificate authorities that the machine trusts."""


@dataclass(frozen=True, slots=True)
class NoTrust:
    """No certificate is checked, because the user has asked for just that."""


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """Certificate authorities as PEM text."""

    pem: str


@dataclass(frozen=True, slots=True)
class SubjectAltName:
    kind: Literal["dns", "uri"]
    value: str


@dataclass(frozen=True, slots=True)
class BackendTls:
    """TLS towards a backend. `hostname` is sent as SNI and, unless `names` says otherwise, has to be in its certificate."""

    hostname: str
    trust: TrustAnchors | SystemTrust | NoTrust
    names: tuple[SubjectAltName, ...] = ()
    client_certificate: CertificateKey | None = None


@dataclass(frozen=True, slots=True)
class Picker:
    """Who chooses the endpoint of each request, and what is done while it gives no answer: any endpoint, or none."""

    target: ClusterKey
    fail_open: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """`engine` is the model server behind it, where that is known: vllm, tgi, sglang, openai. `picker` None leaves the
    choice of an endpoint to the proxy."""

    key: ClusterKey
    protocol: Literal["http1", "http2", "tcp", "udp"]
    tls: BackendTls | None = None
    engine: str | None = None
    prefer: Prefer | None = None
    picker: Picker | None = None


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One address to send to. `address` is an IP address, or a host name that is resolved while serving."""

    address: str
    port: int
    zone: str = ""
    node: str = ""
    hints: tuple[str, ...] = ()  # zones that this endpoint is meant for; empty: all
    ready: bool = True
    weight: int = 1
    node_hints: tuple[str, ...] = ()  # nodes that this endpoint is meant for; empty: all


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a backend is now, sorted."""

    key: ClusterKey
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain and its private key, as PEM text. The key never shows in a repr."""

    key: CertificateKey
    chain: str
    private_key: str = field(repr=False)
