"""InferencePools: the pods that belong to one, who picks among them, and what its status says.

Absent on purpose: whether a route may refer to a pool (`backend`), and how a picker is asked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from gwanmun import ir
from gwanmun.api import InferencePool, Node, Pod, Service
from gwanmun.api.core import ServicePort
from gwanmun.api.inferencepool import INFERENCE_GROUP, EndpointPickerRef
from gwanmun.api.references import GATEWAY_GROUP
from gwanmun.memo import Query
from gwanmun.names import ClusterKey, NamespacedName, ObjectKey
from gwanmun.resolve.attach import gateways_of
from gwanmun.resolve.fault import Refusal
from gwanmun.resolve.grant import permitted
from gwanmun.resolve.listener import controller_of
from gwanmun.resolve.policy import policy_of, policy_tls
from gwanmun.resolve.status import Condition, ParentRef, ParentStatus, RouteStatus
from gwanmun.resolve.world import find, read

PICKER = "picker"
"""ClusterKey.protocol of a Service that is asked to pick endpoints: gRPC, over TLS unless the Service says otherwise."""

POOL_PROTOCOLS = {"http": "http1", "kubernetes.io/h2c": "http2"}
PLAIN_PICKERS = ("h2c", "kubernetes.io/h2c")
"""appProtocol of a picker's Service port that is spoken to without TLS."""

ZONE_LABEL = "topology.kubernetes.io/zone"
INVALID_PICKER = "InvalidExtensionRef"


@dataclass(frozen=True, slots=True)
class PoolView:
    """What routing depends on of an InferencePool. `labels` are sorted, `ports` without repetition."""

    labels: tuple[tuple[str, str], ...]
    ports: tuple[int, ...]
    app_protocol: str
    picker: EndpointPickerRef | None


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod that can be sent to. `leaving` ones only finish what they have begun."""

    labels: frozenset[tuple[str, str]]
    address: str
    node: str
    state: Literal["ready", "leaving"]


def pool_view(q: Query, pool: ObjectKey) -> PoolView | None:
    """The part of a pool that routing depends on; None where it does not exist."""
    obj = read(q, pool, InferencePool)
    if obj is None:
        return None
    spec = obj.spec
    ports = tuple(dict.fromkeys(port.number for port in spec.target_ports))
    return PoolView(tuple(sorted(spec.selector.match_labels.items())), ports, spec.app_protocol, spec.endpoint_picker_ref)


def pool_protocol(view: PoolView, wanted: str) -> str | None:
    """How a pool is spoken to by a route whose traffic is `wanted` by itself; None where that cannot be."""
    if wanted not in ("http1", "http2"):
        return None
    said = POOL_PROTOCOLS.get(view.app_protocol)
    return "http2" if said is not None and wanted == "http2" else said  # gRPC is HTTP/2 whatever a pool says


def pool_backend(q: Query, key: ClusterKey) -> ir.Backend | None:
    """How to speak to a pool; None where it is to be served through its picker alone and that cannot be asked."""
    view = q.get(pool_view, key.backend)
    if view is None:
        return None
    picker = q.get(picker_of, key.backend)
    if isinstance(picker, Refusal):
        picker = None
        if view.picker is not None and not _fails_open(view.picker):
            return None
    return ir.Backend(key, cast(Literal["http1", "http2"], key.protocol), picker=picker)


def picker_of(q: Query, pool: ObjectKey) -> ir.Picker | Refusal | None:
    """Who picks the endpoints of a pool, or why its picker cannot be asked; None where it names none."""
    view = q.get(pool_view, pool)
    if view is None or view.picker is None:
        return None
    ref = view.picker
    if (ref.group, ref.kind) != ("", "Service"):
        message = f'spec.endpointPickerRef: kind "{ref.kind}" of group "{ref.group}" is not supported; Service is'
        return Refusal(INVALID_PICKER, message)
    if ref.port is None:
        return Refusal(INVALID_PICKER, "spec.endpointPickerRef.port is needed to refer to a Service")
    service = ObjectKey("", "Service", pool.namespace, ref.name)
    port = q.get(picker_port, service, ref.port.number)
    if isinstance(port, Refusal):
        return port
    key = ClusterKey(service, ref.port.number, PICKER)
    if q.get(picker_backend, key) is None:
        message = f"spec.endpointPickerRef: TLS to {key} cannot be checked as its BackendTLSPolicy asks, so it is not asked"
        return Refusal(INVALID_PICKER, message)
    return ir.Picker(key, _fails_open(ref))


def _fails_open(ref: EndpointPickerRef) -> bool:
    return ref.failure_mode == "FailOpen"


def picker_port(q: Query, service: ObjectKey, number: int) -> ServicePort | Refusal:
    """The port of a picker's Service, or why there is none."""
    obj = read(q, service, Service)
    if obj is None:
        return Refusal(INVALID_PICKER, f"spec.endpointPickerRef: {service} does not exist")
    if obj.spec.type == "ExternalName":
        return Refusal(INVALID_PICKER, f"spec.endpointPickerRef: {service} is of type ExternalName, which is not supported")
    ports = [port for port in obj.spec.ports if port.protocol == "TCP"]
    found = next((port for port in ports if port.port == number), None)
    if found is not None:
        return found
    there = ", ".join(str(port.port) for port in ports) or "none"
    return Refusal(INVALID_PICKER, f"spec.endpointPickerRef: {service} has no TCP port {number}; it has {there}")


def picker_backend(q: Query, key: ClusterKey) -> ir.Backend | None:
    """How to speak to a picker; None where its BackendTLSPolicy cannot be followed.

    Pickers serve TLS with a certificate that they make themselves (the reference implementation does, by default), so that
    without a policy none can be checked.
    """
    port = q.get(picker_port, key.backend, key.port)
    if isinstance(port, Refusal):
        return None
    policy = q.get(policy_of, key.backend, port.name or "")
    if policy is not None:
        tls = q.get(policy_tls, policy)
        return ir.Backend(key, "http2", tls) if tls is not None else None
    if (port.app_protocol or "").lower() in PLAIN_PICKERS:
        return ir.Backend(key, "http2")
    return ir.Backend(key, "http2", ir.BackendTls(f"{key.backend.name}.{key.backend.namespace}.svc", ir.NoTrust()))


def pool_endpoints(q: Query, key: ClusterKey) -> tuple[ir.Endpoint, ...]:
    """Each target port of each pod of the pool, sorted."""
    view = q.get(pool_view, key.backend)
    if view is None or not view.labels:
        return ()
    wanted = frozenset(view.labels)
    each = (q.get(pod_view, pod) for pod in find(q, "pods", key.backend.namespace))
    members = [pod for pod in each if pod is not None and wanted <= pod.labels]
    ready = [pod for pod in members if pod.state == "ready"]
    # As for Services: better a pod that is on its way out than none at all.
    return tuple(sorted(set(_endpoints(q, ready or members, view.ports))))


def _endpoints(q: Query, pods: Iterable[PodView], ports: tuple[int, ...]) -> Iterable[ir.Endpoint]:
    for pod in pods:
        zone = q.get(node_zone, pod.node) if pod.node else ""
        for port in ports:
            yield ir.Endpoint(pod.address, port, zone, pod.node)


def pod_view(q: Query, pod: ObjectKey) -> PodView | None:
    """A pod as pools see it; None where nothing can be sent to it. What it does not say of itself counts as well."""
    obj = read(q, pod, Pod)
    if obj is None or not obj.status.pod_ip or obj.status.phase not in ("", "Running"):
        return None
    if any(condition.type == "Ready" and condition.status != "True" for condition in obj.status.conditions):
        return None
    state: Literal["ready", "leaving"] = "leaving" if obj.metadata.deletion_timestamp else "ready"
    return PodView(frozenset(obj.metadata.labels.items()), obj.status.pod_ip.lower(), obj.spec.node_name, state)


def node_zone(q: Query, node: str) -> str:
    """The zone of a Node by its label; empty where it has none."""
    obj = read(q, ObjectKey("", "Node", "", node), Node)
    return obj.metadata.labels.get(ZONE_LABEL, "") if obj is not None else ""


def pool_status(q: Query, pool: ObjectKey) -> RouteStatus | None:
    """One entry for each of our Gateways that serves the pool (its form is that of routes); None where there is none.

    Without an entry left, whoever writes it takes those away that were there.
    """
    obj = read(q, pool, InferencePool)
    gateways = q.get(gateways_with, pool)
    if obj is None or not gateways:
        return None
    conditions = (_accepted(obj), _resolved_refs(q, pool))
    return RouteStatus(
        obj.metadata.generation,
        tuple(
            ParentStatus(
                ParentRef(GATEWAY_GROUP, "Gateway", gateway.name, gateway.namespace), q.get(controller_of, gateway), conditions
            )
            for gateway in gateways
        ),
    )


def gateways_with(q: Query, pool: ObjectKey) -> tuple[NamespacedName, ...]:
    """The Gateways that have a route to a pool which may refer to it, sorted."""
    routes = find(q, "backendref", pool)
    allowed = [route for route in routes if q.get(permitted, route.group, route.kind, route.namespace, pool)]
    return tuple(sorted({gateway for route in allowed for gateway in q.get(gateways_of, route)}))


def _accepted(obj: InferencePool) -> Condition:
    if obj.spec.app_protocol in POOL_PROTOCOLS:
        return Condition("Accepted", True, "Accepted")
    message = f'spec.appProtocol: "{obj.spec.app_protocol}" is not one of {", ".join(POOL_PROTOCOLS)}'
    return Condition("Accepted", False, "NotSupportedByParent", message)


def _resolved_refs(q: Query, pool: ObjectKey) -> Condition:
    picker = q.get(picker_of, pool)
    if isinstance(picker, Refusal):
        return Condition("ResolvedRefs", False, picker.reason, picker.message)
    return Condition("ResolvedRefs", True, "ResolvedRefs")


POOL_KIND = (INFERENCE_GROUP, "InferencePool")
"""Group and kind, as in a backendRef."""
