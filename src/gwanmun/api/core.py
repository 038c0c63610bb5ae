"""The kinds of Kubernetes' core group that routing depends on, cut down to the fields that gwanmun reads."""

from typing import ClassVar

import msgspec

from gwanmun.api.meta import ApiStruct, Condition, ObjectMeta


class ServicePort(ApiStruct, frozen=True):
    """One port of a Service. `target_port` is a number or a port name of the pods; None means `port`."""

    port: int
    name: str | None = None
    protocol: str = "TCP"
    target_port: int | str | None = None
    node_port: int | None = None
    app_protocol: str | None = None


class ServiceSpec(ApiStruct, frozen=True):
    """spec of a Service. `type` is ClusterIP, NodePort, LoadBalancer or ExternalName."""

    type: str = "ClusterIP"
    selector: dict[str, str] = msgspec.field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_name: str | None = None
    traffic_distribution: str | None = None
    internal_traffic_policy: str | None = None
    publish_not_ready_addresses: bool = False
    load_balancer_class: str | None = None


class LoadBalancerIngress(ApiStruct, frozen=True):
    """An address that a load balancer gave to a Service."""

    ip: str | None = None
    hostname: str | None = None


class LoadBalancerStatus(ApiStruct, frozen=True):
    """status.loadBalancer of a Service."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(ApiStruct, frozen=True):
    """status of a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(ApiStruct, frozen=True):
    """v1 Service."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Service"

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()
    api_version: str = ""


class Secret(ApiStruct, frozen=True):
    """v1 Secret. `data` is decoded from base64; stringData of a manifest is already merged into it (it wins)."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Secret"

    metadata: ObjectMeta
    type: str = "Opaque"
    data: dict[str, bytes] = msgspec.field(default_factory=dict)
    immutable: bool = False
    api_version: str = ""

    def __repr__(self) -> str:
        """Names the keys only: a value in a log or a traceback is a leaked secret."""
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, type={self.type!r}, keys={sorted(self.data)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich's tracebacks, which would otherwise list the fields."""
        return [("name", f"{self.metadata.namespace}/{self.metadata.name}"), ("keys", sorted(self.data))]


class ConfigMap(ApiStruct, frozen=True):
    """v1 ConfigMap. `binary_data` is decoded from base64."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "ConfigMap"

    metadata: ObjectMeta
    data: dict[str, str] = msgspec.field(default_factory=dict)
    binary_data: dict[str, bytes] = msgspec.field(default_factory=dict)
    immutable: bool = False
    api_version: str = ""


class Namespace(ApiStruct, frozen=True):
    """v1 Namespace; only its labels matter here."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Namespace"

    metadata: ObjectMeta
    api_version: str = ""


class NodeAddress(ApiStruct, frozen=True):
    """`type` is InternalIP, ExternalIP, Hostname, InternalDNS or ExternalDNS."""

    type: str
    address: str


class NodeStatus(ApiStruct, frozen=True):
    """status of a Node: its addresses, and nothing of its capacity or images."""

    addresses: tuple[NodeAddress, ...] = ()


class Node(ApiStruct, frozen=True):
    """v1 Node; its zone is the label topology.kubernetes.io/zone."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Node"

    metadata: ObjectMeta
    status: NodeStatus = NodeStatus()
    api_version: str = ""


class PodIP(ApiStruct, frozen=True):
    """One entry of status.podIPs."""

    ip: str = ""


class PodSpec(ApiStruct, frozen=True):
    """spec of a Pod: the node that it is on, and nothing of its containers."""

    node_name: str = ""


class PodStatus(ApiStruct, frozen=True):
    """status of a Pod: whether it can be reached and where."""

    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    conditions: tuple[Condition, ...] = ()


class Pod(ApiStruct, frozen=True):
    """v1 Pod; an InferencePool finds its own by their labels."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Pod"

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
    api_version: str = ""
