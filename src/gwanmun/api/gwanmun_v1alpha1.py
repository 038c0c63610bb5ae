"""Our own group, gwanmun.dev/v1alpha1 (alias kgateway.dev/v1alpha1): Backend and GatewayClassConfig.

Their CRDs, with every rule and description, are `crds/gwanmun.dev_*.yaml`; defaults here are the same.
"""

from typing import Any, ClassVar

import msgspec

from gwanmun.api.meta import ApiStruct, ObjectMeta
from gwanmun.api.references import LooseStatus, SecretObjectReference

GWANMUN_GROUP = "gwanmun.dev"

Quantity = str | int | float
"""A Kubernetes quantity such as "500m" or "2Gi"; plain numbers are allowed."""


class BackendEndpoint(ApiStruct, frozen=True):
    """One endpoint: an IP `address` or a DNS `hostname` (never both), with the zone it runs in."""

    port: int
    address: str | None = None
    hostname: str | None = None
    zone: str | None = None
    weight: int = 1


class CACertificateReference(ApiStruct, frozen=True):
    """A ConfigMap (key ca.crt) or a Secret of the Backend's namespace that holds CA certificates."""

    name: str
    group: str = ""
    kind: str = "ConfigMap"


class BackendTLS(ApiStruct, frozen=True):
    """TLS to the endpoints. `hostname` is sent as SNI and must be in the certificate; None means the endpoint's own."""

    hostname: str | None = None
    ca_certificate_refs: tuple[CACertificateReference, ...] = ()
    well_known_ca_certificates: str | None = msgspec.field(default=None, name="wellKnownCACertificates")
    client_certificate_ref: SecretObjectReference | None = None
    insecure_skip_verify: bool = False


class BackendSpec(ApiStruct, frozen=True):
    """spec of a Backend. `protocol` is HTTP, H2C, HTTPS, GRPC or TCP; `engine` is vllm, tgi, sglang or openai."""

    endpoints: tuple[BackendEndpoint, ...]
    protocol: str = "HTTP"
    tls: BackendTLS | None = None
    engine: str | None = None


class Backend(ApiStruct, frozen=True):
    """gwanmun.dev/v1alpha1 Backend: model servers that no Service describes."""

    GROUP: ClassVar[str] = GWANMUN_GROUP
    KIND: ClassVar[str] = "Backend"

    metadata: ObjectMeta
    spec: BackendSpec
    status: LooseStatus = msgspec.field(default_factory=dict)
    api_version: str = ""


class ResourceRequirements(ApiStruct, frozen=True):
    """What each proxy asks for and may use, by resource name (cpu, memory)."""

    requests: dict[str, Quantity] = msgspec.field(default_factory=dict)
    limits: dict[str, Quantity] = msgspec.field(default_factory=dict)


class ProxyAutoscaling(ApiStruct, frozen=True):
    """As many proxies as their load asks for: `target_cpu_utilization` is a percentage of the CPU that they request."""

    max_replicas: int
    min_replicas: int = 2
    target_cpu_utilization: int = msgspec.field(default=70, name="targetCPUUtilization")


class ObjectOverrides(ApiStruct, frozen=True):
    """What is put over our own object: labels and annotations are added, `spec` is merged (lists by name, null removes)."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    spec: dict[str, Any] = msgspec.field(default_factory=dict)


class ProxySettings(ApiStruct, frozen=True):
    """The proxies of each Gateway. Pod fields are handed to Kubernetes as written; one machine runs one proxy.

    `autoscaling` takes the place of `replicas`. A proxy that ends takes new connections for `settle_timeout` still, then lets
    requests go on for `drain_timeout`.
    """

    replicas: int | None = None
    resources: ResourceRequirements = ResourceRequirements()
    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    affinity: dict[str, Any] = msgspec.field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    priority_class_name: str | None = None
    autoscaling: ProxyAutoscaling | None = None
    settle_timeout: str | None = None
    drain_timeout: str | None = None
    pod: ObjectOverrides = ObjectOverrides()
    service: ObjectOverrides = ObjectOverrides()


class ConnectionSettings(ApiStruct, frozen=True):
    """Client connections (their number on a listener, how long an idle one is kept) and the time to connect to a backend,
    durations such as "10s"; None keeps the default."""

    max_connections: int | None = None
    connect_timeout: str | None = None
    idle_timeout: str | None = None


class InferenceSettings(ApiStruct, frozen=True):
    """The header that carries the model's name, and how large a body may be that has to be read for it."""

    model_header: str = "x-model-id"
    max_request_bytes: Quantity = "32Mi"


class GatewayClassConfigSpec(ApiStruct, frozen=True):
    """spec of a GatewayClassConfig."""

    proxy: ProxySettings = ProxySettings()
    connection_settings: ConnectionSettings = ConnectionSettings()
    inference: InferenceSettings = InferenceSettings()


class GatewayClassConfig(ApiStruct, frozen=True):
    """gwanmun.dev/v1alpha1 GatewayClassConfig, cluster-scoped: parametersRef of a GatewayClass."""

    GROUP: ClassVar[str] = GWANMUN_GROUP
    KIND: ClassVar[str] = "GatewayClassConfig"

    metadata: ObjectMeta
    spec: GatewayClassConfigSpec = GatewayClassConfigSpec()
    status: LooseStatus = msgspec.field(default_factory=dict)
    api_version: str = ""
