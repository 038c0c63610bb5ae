"""What a backendRef leads to: one of the kinds in `BACKEND_KINDS`, how it is spoken to, and whether it may be used.

Absent on purpose: where a backend's endpoints are (`endpoint`), and TLS policies (`policy`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, cast

from gwanmun import ir
from gwanmun.api import Backend, Service
from gwanmun.api.core import ServicePort
from gwanmun.api.gwanmun_v1alpha1 import GWANMUN_GROUP
from gwanmun.api.references import BackendObjectReference
from gwanmun.memo import Query
from gwanmun.names import CertificateKey, ClusterKey, NamespacedName, ObjectKey
from gwanmun.resolve.fault import Refusal
from gwanmun.resolve.grant import missing_grant, permitted
from gwanmun.resolve.policy import policy_of, policy_tls
from gwanmun.resolve.pool import PICKER, POOL_KIND, picker_backend, picker_of, pool_backend, pool_protocol, pool_view
from gwanmun.resolve.status import Condition, ObjectConditions
from gwanmun.resolve.tls import Unresolved, authorities, certificate_ref, client_identity
from gwanmun.resolve.world import read

Protocol = Literal["http1", "http2", "tcp", "udp"]

APP_PROTOCOLS: Mapping[str, Protocol] = {
    "http": "http1",
    "kubernetes.io/ws": "http1",  # WebSocket is an upgrade of HTTP/1.1, which every http1 backend may ask for
    "http2": "http2",
    "h2c": "http2",
    "kubernetes.io/h2c": "http2",
    "grpc": "http2",
}
"""appProtocol of a Service port (KEP-3726 and IANA names), in lower case."""
SECURE_APP_PROTOCOLS: Mapping[str, Protocol | None] = {"https": None, "kubernetes.io/wss": "http1"}
"""Those that ask for TLS; None is as the route prefers. How to check the server, only a BackendTLSPolicy says."""
UNSAID_APP_PROTOCOLS = ("", "tcp")

TRAFFIC_DISTRIBUTIONS: Mapping[str, ir.Prefer] = {
    "PreferClose": "zone",
    "PreferSameZone": "zone",
    "PreferSameNode": "node",
}
TOPOLOGY_ANNOTATIONS = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")

TLS_OVER_TCP = "tls"
"""ClusterKey.protocol of plain bytes sent over TLS (a TLSRoute on a terminating listener with a BackendTLSPolicy)."""


class Referrer(NamedTuple):
    """Who refers to a backend: routes of one kind and namespace as one Gateway serves them, and the protocol that their traffic
    has by itself."""

    group: str
    kind: str
    namespace: str
    gateway: NamespacedName
    protocol: str  # a Protocol, or TLS_OVER_TCP


@dataclass(frozen=True, slots=True)
class Destination:
    """What a reference leads to, with what a rule has to know of it: who picks the endpoint of each request, whether endpoints
    near the proxy are preferred, and whether model servers are known to be there.

    Traffic may be sent there only where it is `reachable`, and not where TLS is asked for that cannot be checked as asked.
    """

    cluster: ClusterKey
    reachable: bool
    picker: ir.Picker | None
    prefers_near: bool
    serves_models: bool


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a backend as a reference sees it. `secure`: TLS is spoken to it."""

    number: int
    protocol: str
    secure: bool = False


@dataclass(frozen=True, slots=True)
class BackendKind:
    """`port` judges a reference (object, port or None, the referrer's protocol); `backend` says how to speak to it."""

    port: Callable[[Query, ObjectKey, int | None, str], Port | Refusal]
    backend: Callable[[Query, ClusterKey], ir.Backend | None]


@dataclass(frozen=True, slots=True)
class ServiceView:
    """What routing depends on of a Service."""

    external: bool
    ports: tuple[ServicePort, ...]
    prefer: ir.Prefer | None
    ipv6_first: bool


def backend(q: Query, key: ClusterKey) -> ir.Backend | None:
    """How to speak to a backend, or None where it cannot be reached as its owner asks (its share answers 500)."""
    kind = BACKEND_KINDS.get((key.backend.group, key.backend.kind))
    return kind.backend(q, key) if kind is not None else None


def resolve_ref(q: Query, referrer: Referrer, ref: BackendObjectReference) -> Destination | Refusal:
    """What a backendRef leads to."""
    # One cell says all of it, and routes share it: there are as many references as there are routes, and few backends.
    target = ObjectKey(ref.group, ref.kind, ref.namespace or referrer.namespace, ref.name)
    return q.get(destination, referrer, target, ref.port)


def destination(q: Query, referrer: Referrer, target: ObjectKey, number: int | None) -> Destination | Refusal:
    """What a reference to an object and a port of it leads to."""
    kind = BACKEND_KINDS.get((target.group, target.kind))
    if kind is None:
        known = ", ".join(f'{name} (group "{group}")' for group, name in BACKEND_KINDS)
        return Refusal("InvalidKind", f'kind "{target.kind}" of group "{target.group}" is no backend here; supported: {known}')
    if not q.get(permitted, referrer.group, referrer.kind, referrer.namespace, target):
        grant = missing_grant(referrer.group, referrer.kind, referrer.namespace, target)
        return Refusal("RefNotPermitted", f"{target} is in another namespace and no ReferenceGrant permits it; {grant}")
    port = kind.port(q, target, number, referrer.protocol)
    if isinstance(port, Refusal):
        return port
    presents = port.secure and q.get(client_identity, referrer.gateway) is not None
    cluster = ClusterKey(target, port.number, port.protocol, referrer.gateway if presents else None)
    found = q.get(backend, cluster)
    is_pool = (target.group, target.kind) == POOL_KIND
    if found is None:
        return Destination(cluster, reachable=False, picker=None, prefers_near=False, serves_models=is_pool)
    models = is_pool or found.engine is not None
    return Destination(cluster, True, found.picker, prefers_near=found.prefer is not None, serves_models=models)


def unreachable(key: ClusterKey) -> str:
    """What to say of a backend that is not reachable; its policy's or its own status says more."""
    return f"TLS to {key} cannot be checked as its BackendTLSPolicy or spec.tls asks, so nothing is sent there"


def service_view(q: Query, service: ObjectKey) -> ServiceView | None:
    """The part of a Service that routing depends on; None where it does not exist."""
    obj = read(q, service, Service)
    if obj is None:
        return None
    ips = (obj.spec.cluster_ip or "", *obj.spec.cluster_ips)
    first = next((ip for ip in ips if ip not in ("", "None")), "")
    return ServiceView(obj.spec.type == "ExternalName", obj.spec.ports, _prefer(obj), ":" in first)


def service_port(view: ServiceView, number: int, protocol: str) -> ServicePort | None:
    """The port of that number, among TCP or UDP ports as the protocol needs."""
    transport = "UDP" if protocol == "udp" else "TCP"
    return next((port for port in view.ports if port.port == number and port.protocol == transport), None)


def _prefer(service: Service) -> ir.Prefer | None:
    """Kubernetes lets the older annotation win over spec.trafficDistribution. It means what the hints say and nothing else: the
    topology controller gives none where a zone would get too few endpoints for its share of the traffic."""
    if any(service.metadata.annotations.get(name, "").lower() == "auto" for name in TOPOLOGY_ANNOTATIONS):
        return "hints"
    return TRAFFIC_DISTRIBUTIONS.get(service.spec.traffic_distribution or "")


def _port_of_service(q: Query, service: ObjectKey, number: int | None, protocol: str) -> Port | Refusal:
    view = q.get(service_view, service)
    if view is None:
        return Refusal("BackendNotFound", f"{service} does not exist")
    if view.external:
        return Refusal(
            "UnsupportedValue",
            f"{service} is of type ExternalName, with which a Service could reach any host; use a {GWANMUN_GROUP} Backend",
        )
    there = ", ".join(f"{port.port} ({port.name or port.protocol})" for port in view.ports) or "no ports"
    if number is None:
        return Refusal("BackendNotFound", f"port is needed to refer to {service}; it has {there}")
    port = service_port(view, number, protocol)
    if port is not None:
        return _with_app_protocol(q, service, port, protocol)
    if any(port.port == number for port in view.ports):
        wanted = "UDP" if protocol == "udp" else "TCP"
        return Refusal("UnsupportedProtocol", f"port {number} of {service} is not a {wanted} port; it has {there}")
    return Refusal("BackendNotFound", f"{service} has no port {number}; it has {there}")


def _with_app_protocol(q: Query, service: ObjectKey, port: ServicePort, protocol: str) -> Port | Refusal:
    if protocol in ("tcp", "udp"):
        return Port(port.port, protocol)
    secure = q.get(policy_of, service, port.name or "") is not None
    if protocol == TLS_OVER_TCP:
        return Port(port.port, TLS_OVER_TCP if secure else "tcp", secure)
    said = (port.app_protocol or "").lower()
    if said in UNSAID_APP_PROTOCOLS:
        return Port(port.port, protocol, secure)
    if said in APP_PROTOCOLS:
        return Port(port.port, APP_PROTOCOLS[said], secure)
    if said not in SECURE_APP_PROTOCOLS:
        known = ", ".join((*APP_PROTOCOLS, *SECURE_APP_PROTOCOLS))
        return Refusal(
            "UnsupportedProtocol",
            f'port {port.port} of {service} has appProtocol "{port.app_protocol}"; supported: {known}',
        )
    if not secure:
        return Refusal(
            "UnsupportedProtocol",
            f'port {port.port} of {service} has appProtocol "{port.app_protocol}" and no BackendTLSPolicy says how its '
            "certificate is checked",
        )
    return Port(port.port, SECURE_APP_PROTOCOLS[said] or protocol, secure)


def _service_backend(q: Query, key: ClusterKey) -> ir.Backend | None:
    if key.protocol == PICKER:
        return q.get(picker_backend, key)
    view = q.get(service_view, key.backend)
    port = service_port(view, key.port, key.protocol) if view is not None else None
    if view is None or port is None:
        return None
    protocol: Protocol = "tcp" if key.protocol == TLS_OVER_TCP else cast(Protocol, key.protocol)
    plain = ir.Backend(key, protocol, prefer=view.prefer)
    policy = q.get(policy_of, key.backend, port.name or "") if key.protocol not in ("tcp", "udp") else None
    if policy is None:
        return plain
    tls = q.get(policy_tls, policy)
    return replace(plain, tls=_presenting(q, tls, key)) if tls is not None else None


def _presenting(q: Query, tls: ir.BackendTls, key: ClusterKey) -> ir.BackendTls:
    """With the client certificate of the Gateway that the key names, unless the backend has one of its own."""
    if key.identity is None or tls.client_certificate is not None:
        return tls
    return replace(tls, client_certificate=q.get(client_identity, key.identity))


def _port_of_backend(q: Query, key: ObjectKey, number: int | None, protocol: str) -> Port | Refusal:
    obj = read(q, key, Backend)
    if obj is None:
        return Refusal("BackendNotFound", f"{key} does not exist")
    numbers = sorted({endpoint.port for endpoint in obj.spec.endpoints})
    if number is not None and number not in numbers:
        there = ", ".join(map(str, numbers)) or "none"
        return Refusal("BackendNotFound", f"{key} has no endpoint with port {number}; it has {there}")
    if number is None:
        number = numbers[0] if len(numbers) == 1 else 0  # 0: each endpoint has its own
    return _backend_protocol(obj, key, number, protocol)


def _backend_protocol(obj: Backend, key: ObjectKey, number: int, protocol: str) -> Port | Refusal:
    said, secure = obj.spec.protocol, _backend_secure(obj)
    if protocol == "udp":
        return Refusal("UnsupportedProtocol", f"{key} has protocol {said}; a UDPRoute needs a Service with a UDP port")
    if protocol in ("tcp", TLS_OVER_TCP):
        return Port(number, TLS_OVER_TCP if secure else "tcp", secure)
    match said:
        case "HTTP" | "HTTPS":
            return Port(number, protocol if said == "HTTPS" or protocol == "http2" else "http1", secure)
        case "H2C" | "GRPC":
            return Port(number, "http2", secure)
        case _:
            return Refusal(
                "UnsupportedProtocol", f'{key} has protocol "{said}"; HTTP, H2C, HTTPS or GRPC is needed for HTTP routes'
            )


def _backend_secure(obj: Backend) -> bool:
    return obj.spec.tls is not None or obj.spec.protocol == "HTTPS"


def _backend_backend(q: Query, key: ClusterKey) -> ir.Backend | None:
    obj = read(q, key.backend, Backend)
    if obj is None:
        return None
    protocol: Protocol = "tcp" if key.protocol == TLS_OVER_TCP else cast(Protocol, key.protocol)
    # Whoever says in which zones its servers are wants near ones to be preferred.
    prefer: ir.Prefer | None = "zone" if any(endpoint.zone for endpoint in obj.spec.endpoints) else None
    plain = ir.Backend(key, protocol, engine=obj.spec.engine, prefer=prefer)
    if not _backend_secure(obj):
        return plain
    tls = q.get(backend_tls, key.backend)
    return replace(plain, tls=_presenting(q, tls, key)) if isinstance(tls, ir.BackendTls) else None


def backend_tls(q: Query, key: ObjectKey) -> ir.BackendTls | Refusal:
    """TLS as spec.tls of a Backend asks for it, or why that cannot be done."""
    obj = read(q, key, Backend)
    if obj is None:
        return Refusal("BackendNotFound", f"{key} does not exist")
    spec = obj.spec.tls
    if spec is None:
        return Refusal("InvalidTLS", "spec.protocol HTTPS needs spec.tls, which says how the server's certificate is checked")
    names = sorted({endpoint.hostname or "" for endpoint in obj.spec.endpoints})
    hostname = spec.hostname or (names[0] if len(names) == 1 else "")
    if not hostname:
        return Refusal(
            "InvalidTLS", "spec.tls.hostname is needed where the endpoints do not all have one and the same hostname"
        )
    trust = _backend_trust(q, key, obj)
    if isinstance(trust, Refusal):
        return trust
    if spec.client_certificate_ref is None:
        return ir.BackendTls(hostname.lower(), trust)
    certificate = certificate_ref(q, key, spec.client_certificate_ref, invalid="InvalidClientCertificateRef")
    if not isinstance(certificate, CertificateKey):
        return Refusal(certificate.reason, f"spec.tls.clientCertificateRef: {certificate.message}")
    return ir.BackendTls(hostname.lower(), trust, client_certificate=certificate)


def _backend_trust(q: Query, key: ObjectKey, obj: Backend) -> ir.TrustAnchors | ir.SystemTrust | ir.NoTrust | Refusal:
    assert obj.spec.tls is not None
    spec = obj.spec.tls
    if spec.insecure_skip_verify:
        return ir.NoTrust()
    if not spec.ca_certificate_refs:
        if spec.well_known_ca_certificates in (None, "System"):
            return ir.SystemTrust()
        return Refusal("InvalidTLS", f'spec.tls.wellKnownCACertificates: "{spec.well_known_ca_certificates}" is not "System"')
    pems = []
    for index, ref in enumerate(spec.ca_certificate_refs):
        where = f"spec.tls.caCertificateRefs[{index}]"
        if (ref.group, ref.kind) not in (("", "ConfigMap"), ("", "Secret")):
            return Refusal("InvalidKind", f'{where}: kind "{ref.kind}" of group "{ref.group}" is not ConfigMap or Secret')
        pem = q.get(authorities, ObjectKey(ref.group, ref.kind, key.namespace, ref.name))
        if isinstance(pem, Unresolved):
            return Refusal(pem.reason, f"{where}: {pem.message}")
        pems.append(pem)
    return ir.TrustAnchors("\n".join(pems))


def _port_of_pool(q: Query, key: ObjectKey, _: int | None, protocol: str) -> Port | Refusal:
    """A port in the reference means nothing: a pool has its own."""
    view = q.get(pool_view, key)
    if view is None:
        return Refusal("BackendNotFound", f"{key} does not exist")
    spoken = pool_protocol(view, protocol)
    if spoken is None:
        return Refusal("UnsupportedProtocol", f'{key} has appProtocol "{view.app_protocol}"; it is for HTTP and gRPC routes')
    if q.get(pool_backend, ClusterKey(key, 0, spoken)) is None:
        picker = q.get(picker_of, key)
        assert isinstance(picker, Refusal)
        return Refusal("BackendNotFound", f"{key}: {picker.message}")
    return Port(0, spoken)


def backend_status(q: Query, key: ObjectKey) -> ObjectConditions | None:
    """The conditions of a Backend object; None where it does not exist."""
    obj = read(q, key, Backend)
    if obj is None:
        return None
    tls = q.get(backend_tls, key) if _backend_secure(obj) else None
    if not isinstance(tls, Refusal):
        return ObjectConditions(obj.metadata.generation, (Condition("Accepted", True, "Accepted"),))
    return ObjectConditions(obj.metadata.generation, (Condition("Accepted", False, tls.reason, tls.message),))


BACKEND_KINDS: Mapping[tuple[str, str], BackendKind] = {
    ("", "Service"): BackendKind(_port_of_service, _service_backend),
    (GWANMUN_GROUP, "Backend"): BackendKind(_port_of_backend, _backend_backend),
    POOL_KIND: BackendKind(_port_of_pool, pool_backend),
}
"""What a backendRef may name, by (group, kind)."""
