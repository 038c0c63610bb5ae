"""The kinds that gwanmun understands: their Python type, scope and served versions, and alias groups."""

from dataclasses import dataclass
from types import MappingProxyType

from gwanmun.api import (
    Backend,
    BackendTLSPolicy,
    ConfigMap,
    EndpointSlice,
    Gateway,
    GatewayClass,
    GatewayClassConfig,
    GRPCRoute,
    HTTPRoute,
    InferencePool,
    ListenerSet,
    Namespace,
    Node,
    Object,
    Pod,
    ReferenceGrant,
    Secret,
    Service,
    TCPRoute,
    TLSRoute,
    UDPRoute,
)
from gwanmun.api.gwanmun_v1alpha1 import GWANMUN_GROUP
from gwanmun.api.inferencepool import INFERENCE_GROUP
from gwanmun.api.made import made
from gwanmun.api.references import GATEWAY_GROUP

ALIAS_GROUPS = MappingProxyType({"kgateway.dev": GWANMUN_GROUP})
"""Groups whose kinds are those of another group. The versions are the same too."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: `versions` newest first, `plural` as in URLs and CRD names."""

    group: str
    kind: str
    plural: str
    type: type[Object]
    versions: tuple[str, ...]
    namespaced: bool = True


def _gateway(type_: type[Object], plural: str, versions: str, *, namespaced: bool = True) -> Kind:
    return Kind(GATEWAY_GROUP, type_.KIND, plural, type_, tuple(versions.split()), namespaced)


def _made(group: str, kind: str, plural: str, version: str) -> Kind:
    return Kind(group, kind, plural, made(group, kind), (version,))


_ALL = (
    _gateway(GatewayClass, "gatewayclasses", "v1 v1beta1", namespaced=False),
    _gateway(Gateway, "gateways", "v1 v1beta1"),
    _gateway(HTTPRoute, "httproutes", "v1 v1beta1"),
    _gateway(GRPCRoute, "grpcroutes", "v1"),
    _gateway(TLSRoute, "tlsroutes", "v1 v1alpha3 v1alpha2"),
    _gateway(TCPRoute, "tcproutes", "v1 v1alpha2"),
    _gateway(UDPRoute, "udproutes", "v1 v1alpha2"),
    _gateway(ListenerSet, "listenersets", "v1"),
    _gateway(ReferenceGrant, "referencegrants", "v1 v1beta1"),
    _gateway(BackendTLSPolicy, "backendtlspolicies", "v1 v1alpha3"),
    Kind("", "Service", "services", Service, ("v1",)),
    Kind("", "Secret", "secrets", Secret, ("v1",)),
    Kind("", "ConfigMap", "configmaps", ConfigMap, ("v1",)),
    Kind("", "Namespace", "namespaces", Namespace, ("v1",), namespaced=False),
    Kind("", "Node", "nodes", Node, ("v1",), namespaced=False),
    Kind("", "Pod", "pods", Pod, ("v1",)),
    Kind("discovery.k8s.io", "EndpointSlice", "endpointslices", EndpointSlice, ("v1",)),
    Kind(INFERENCE_GROUP, "InferencePool", "inferencepools", InferencePool, ("v1",)),
    Kind(GWANMUN_GROUP, "Backend", "backends", Backend, ("v1alpha1",)),
    Kind(GWANMUN_GROUP, "GatewayClassConfig", "gatewayclassconfigs", GatewayClassConfig, ("v1alpha1",), namespaced=False),
)

KINDS = MappingProxyType({(kind.group, kind.kind): kind for kind in _ALL})
"""By group and kind, alias groups left out."""

MADE_KINDS = (
    _made("", "ServiceAccount", "serviceaccounts", "v1"),
    _made("", "ConfigMap", "configmaps", "v1"),
    _made("", "Service", "services", "v1"),
    _made("apps", "Deployment", "deployments", "v1"),
    _made("networking.k8s.io", "NetworkPolicy", "networkpolicies", "v1"),
    _made("policy", "PodDisruptionBudget", "poddisruptionbudgets", "v1"),
    _made("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "v2"),
    _made("cert-manager.io", "Certificate", "certificates", "v1"),
)
"""Kinds of what is made for Gateways. The chart grants each to be followed and deleted, whether it is made just now or not."""

CORE_KINDS_NOT_USED = frozenset(
    {
        "Binding",
        "ComponentStatus",
        "Endpoints",
        "Event",
        "LimitRange",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "PodTemplate",
        "ReplicationController",
        "ResourceQuota",
        "ServiceAccount",
    }
)
"""Kinds of the core group that a folder may hold for Kubernetes' sake; gwanmun does not read them."""


def split_api_version(api_version: str) -> tuple[str, str]:
    """Group and version of an apiVersion; the core group is empty."""
    group, _, version = api_version.rpartition("/")
    return group, version


def canonical_group(group: str) -> str:
    """The group that an alias group stands for; any other group itself."""
    return ALIAS_GROUPS.get(group, group)
