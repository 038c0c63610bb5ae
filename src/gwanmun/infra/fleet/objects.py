"""What runs the proxies of a Gateway on Kubernetes: the objects, from the Gateway and its GatewayClassConfig. Pure.

Deliberately absent: applying them (`apply`), the pod in detail (`pod`) and certificates (`certificates`).
"""

import ipaddress
from collections.abc import Iterable
from typing import Any, Final

from gwanmun.api import Gateway, GatewayClassConfig
from gwanmun.api.gwanmun_v1alpha1 import ProxyAutoscaling, ProxySettings
from gwanmun.infra.fleet.contract import CA_FILE, PROVISIONAL
from gwanmun.infra.fleet.merge import merged
from gwanmun.infra.fleet.naming import annotations, document, fleet_name, labels, owner_reference, selector
from gwanmun.infra.fleet.options import FleetOptions
from gwanmun.infra.fleet.pod import pod_template
from gwanmun.infra.podports import METRICS_PORT, PodPorts

_LOAD_BALANCERS: Final = (
    "service.beta.kubernetes.io/",
    "service.kubernetes.io/",
    "networking.gke.io/",
    "cloud.google.com/",
    "external-dns.alpha.kubernetes.io/",
    "io.cilium/",
    "lbipam.cilium.io/",
    "load-balancer.hetzner.cloud/",
    "metallb.io/",
    "metallb.universe.tf/",
    "oci.oraclecloud.com/",
    "oci-network-load-balancer.oraclecloud.com/",
)
"""Annotations of a Gateway that begin so are meant for whoever gives its Service an address."""


OF_PARAMETERS: Final = frozenset({"Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "Service"})
"""Kinds of what a GatewayClassConfig has a say in."""


def provisional(objects: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The same objects, those marked that may have to be others once the GatewayClassConfig can be read."""
    return tuple(_marked(one) if one["kind"] in OF_PARAMETERS else one for one in objects)


def _marked(manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), PROVISIONAL: "true"}}}


def fleet_objects(
    gateway: Gateway, class_config: GatewayClassConfig | None, ports: PodPorts, options: FleetOptions
) -> tuple[dict[str, Any], ...]:
    """Everything that a Gateway needs, in the order in which it is to be applied.

    `ports` are all that the Gateway declares (`podports.pod_ports`), also those that are not served just now: without its
    Service a Gateway would lose its address. With none at all there is no Service, and no proxy runs.
    """
    proxy = class_config.spec.proxy if class_config is not None else ProxySettings()
    # Without a port nothing is there to be scaled, and Kubernetes leaves a Deployment of 0 alone.
    scaling = proxy.autoscaling if ports else None
    deployment = _deployment(gateway, proxy, ports, options)
    services = [_service(gateway, proxy, ports, options)] if ports else []
    return (
        document("v1", "ServiceAccount", _metadata(gateway, options), automountServiceAccountToken=False),
        document("v1", "ConfigMap", _metadata(gateway, options), data={CA_FILE.name: options.xds_ca}),
        # A port has to be open before anybody is led to it.
        *([_network_policy(gateway, deployment, services, options)] if options.network_policy else []),
        deployment,
        *services,
        _disruption_budget(gateway, options),
        *([_autoscaler(gateway, scaling, options)] if scaling is not None else []),
    )


def _metadata(gateway: Gateway, options: FleetOptions) -> dict[str, Any]:
    return {
        "name": fleet_name(gateway),
        "namespace": gateway.metadata.namespace,
        "labels": labels(gateway, options.instance),
        "annotations": annotations(gateway),
        "ownerReferences": [owner_reference("Gateway", gateway.metadata, gateway.api_version)],
    }


def _deployment(gateway: Gateway, proxy: ProxySettings, ports: PodPorts, options: FleetOptions) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "selector": {"matchLabels": selector(gateway)},
        # One more before one less: at no moment of a rollout are there fewer proxies than asked for.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": pod_template(gateway, proxy, options),
    }
    if not ports:
        spec["replicas"] = 0
    elif proxy.autoscaling is None:
        spec["replicas"] = options.replicas if proxy.replicas is None else proxy.replicas
    return document("apps/v1", "Deployment", _metadata(gateway, options), spec=spec)


def _service(gateway: Gateway, proxy: ProxySettings, ports: PodPorts, options: FleetOptions) -> dict[str, Any]:
    metadata = _metadata(gateway, options)
    for_load_balancer = {
        name: value for name, value in gateway.metadata.annotations.items() if name.startswith(_LOAD_BALANCERS)
    }
    # The nearer to the Gateway, the more it counts: its class, its own annotations, its infrastructure's.
    metadata["annotations"] = {**proxy.service.annotations, **for_load_balancer, **metadata["annotations"]}
    metadata["labels"] = {**proxy.service.labels, **metadata["labels"]}
    base = {
        "type": "LoadBalancer",
        "ports": [
            {"name": f"{transport}-{number}", "port": number, "protocol": transport.upper(), "targetPort": pod}
            for (number, transport), pod in sorted(ports.items())
        ],
    }
    spec = {**merged(base, proxy.service.spec), "selector": selector(gateway)}
    return document("v1", "Service", metadata, spec={**spec, **_addresses(gateway, spec.get("type", "ClusterIP"))})


def _addresses(gateway: Gateway, service_type: str) -> dict[str, Any]:
    """Fields of the Service that ask for spec.addresses: a load balancer takes one, nodes answer to any others."""
    asked = [
        address.value
        for address in gateway.spec.addresses
        if address.type == "IPAddress" and address.value and _is_ip(address.value)
    ]
    if not asked:
        return {}
    if service_type != "LoadBalancer":
        return {"externalIPs": asked}
    first, *others = asked
    return {"loadBalancerIP": first, **({"externalIPs": others} if others else {})}


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _network_policy(
    gateway: Gateway, deployment: dict[str, Any], services: list[dict[str, Any]], options: FleetOptions
) -> dict[str, Any]:
    """From anywhere: what the Service leads to, and what containers of a GatewayClassConfig's own declare. From within the
    cluster: metrics. Where proxies may connect to is not limited, as backends can be anywhere."""
    pod = deployment["spec"]["template"]["spec"]
    declared = (port for one in (*pod["containers"], *pod.get("initContainers", ())) for port in one.get("ports", ()))
    served = (port for one in services for port in one["spec"].get("ports", ()))
    open_to_all = {(port.get("protocol", "TCP"), port["containerPort"]) for port in declared}
    open_to_all |= {(port.get("protocol", "TCP"), port.get("targetPort", port["port"])) for port in served}
    metrics = ("TCP", METRICS_PORT)
    open_to_all.discard(metrics)
    spec = {
        "podSelector": {"matchLabels": selector(gateway)},
        "policyTypes": ["Ingress"],
        "ingress": [
            # A rule without ports would let everything in.
            *([{"ports": _policy_ports(open_to_all)}] if open_to_all else []),
            {"from": [{"namespaceSelector": {}}], "ports": _policy_ports({metrics})},
        ],
    }
    return document("networking.k8s.io/v1", "NetworkPolicy", _metadata(gateway, options), spec=spec)


def _policy_ports(ports: set[tuple[str, Any]]) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": protocol} for protocol, port in sorted(ports, key=lambda one: (one[0], str(one[1])))]


def _disruption_budget(gateway: Gateway, options: FleetOptions) -> dict[str, Any]:
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector(gateway)},
        # A proxy that is not ready serves nobody: it must not keep its node from being emptied.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return document("policy/v1", "PodDisruptionBudget", _metadata(gateway, options), spec=spec)


def _autoscaler(gateway: Gateway, scaling: ProxyAutoscaling, options: FleetOptions) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": scaling.target_cpu_utilization}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": fleet_name(gateway)},
        "minReplicas": min(scaling.min_replicas, scaling.max_replicas),
        "maxReplicas": scaling.max_replicas,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        # Proxies hold long streams: each that is taken away has to drain, so one at a time.
        "behavior": {
            "scaleDown": {"stabilizationWindowSeconds": 300, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
        },
    }
    return document("autoscaling/v2", "HorizontalPodAutoscaler", _metadata(gateway, options), spec=spec)
