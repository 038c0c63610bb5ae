"""The pod of a proxy, as Kubernetes' strictest pod security level (restricted) takes it. Pure.

The image's entry point is `gwanmun proxy`; everything that it has to know is in variables, so the pod names no command.
"""

from datetime import timedelta
from typing import Any, Final

from gwanmun.api import Gateway
from gwanmun.api.duration import parse_duration
from gwanmun.api.gwanmun_v1alpha1 import ProxySettings, ResourceRequirements
from gwanmun.infra.fleet import contract
from gwanmun.infra.fleet.merge import merged
from gwanmun.infra.fleet.naming import annotations, fleet_name, labels, selector
from gwanmun.infra.fleet.options import FleetOptions
from gwanmun.infra.podports import METRICS_PORT

CONTAINER: Final = "proxy"
_HOSTNAME: Final = "kubernetes.io/hostname"
_ZONE: Final = "topology.kubernetes.io/zone"
_SETTLE: Final = timedelta(seconds=5)
"""Until all nodes and routers of the cluster have heard that a pod is not ready any more."""
_SETTLE_OUTSIDE: Final = timedelta(seconds=30)
"""The same for load balancers, which look for themselves or are told by a controller of their own."""
_AFTER_DRAIN = timedelta(seconds=15)
"""What ending takes besides waiting for requests: noticing, ending Envoy, and a reserve."""
_TOKEN_SECONDS: Final = 3600
_RUN, _TOKEN, _CA = "run", "token", "ca"


def pod_template(gateway: Gateway, proxy: ProxySettings, options: FleetOptions) -> dict[str, Any]:
    """spec.template of the Deployment."""
    wanted = {**labels(gateway, options.instance), **proxy.pod.labels, **selector(gateway)}
    noted = {**annotations(gateway), **proxy.pod.annotations}
    metadata = {"labels": wanted, **({"annotations": noted} if noted else {})}
    return {"metadata": metadata, "spec": merged(_spec(gateway, proxy, options), proxy.pod.spec)}


def _spec(gateway: Gateway, proxy: ProxySettings, options: FleetOptions) -> dict[str, Any]:
    settle, drain = _settle(proxy), _drain(proxy, options)
    optional = {
        "affinity": proxy.affinity or _apart(gateway),
        "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets],
        "nodeSelector": proxy.node_selector,
        "priorityClassName": proxy.priority_class_name,
        "tolerations": list(proxy.tolerations),
        "topologySpreadConstraints": list(proxy.topology_spread_constraints) or [_over_zones(gateway)],
    }
    return {
        "automountServiceAccountToken": False,
        "containers": [_container(proxy, options, _environment(gateway, options, settle=settle, drain=drain))],
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "serviceAccountName": fleet_name(gateway),
        "terminationGracePeriodSeconds": int((settle + drain + _AFTER_DRAIN).total_seconds()),
        "volumes": _volumes(gateway),
        **{key: value for key, value in optional.items() if value},
    }


def _settle(proxy: ProxySettings) -> timedelta:
    asked = parse_duration(proxy.settle_timeout) if proxy.settle_timeout else None
    if asked is not None:
        return asked
    return _SETTLE_OUTSIDE if proxy.service.spec.get("type", "LoadBalancer") == "LoadBalancer" else _SETTLE


def _drain(proxy: ProxySettings, options: FleetOptions) -> timedelta:
    # A text that is no duration cannot pass the CRD's pattern; should it come all the same, the default is safe.
    return (parse_duration(proxy.drain_timeout) if proxy.drain_timeout else None) or options.drain


def _apart(gateway: Gateway) -> dict[str, Any]:
    """Rather not two proxies on one machine, but rather that than none."""
    term = {"labelSelector": {"matchLabels": selector(gateway)}, "topologyKey": _HOSTNAME}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def _over_zones(gateway: Gateway) -> dict[str, Any]:
    return {
        "labelSelector": {"matchLabels": selector(gateway)},
        # Each version of the pods is spread by itself: during a rollout the old ones do not push the new ones together.
        "matchLabelKeys": ["pod-template-hash"],
        "maxSkew": 1,
        "topologyKey": _ZONE,
        "whenUnsatisfiable": "ScheduleAnyway",
    }


def _container(proxy: ProxySettings, options: FleetOptions, environment: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": options.image,
        "imagePullPolicy": options.image_pull_policy,
        "env": environment,
        # The Gateway's ports are not named: with every listener that comes or goes all proxies would be made anew.
        "ports": [{"containerPort": METRICS_PORT, "name": "metrics", "protocol": "TCP"}],
        # Ready: Envoy has its whole configuration and is not on its way out.
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "metrics"},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "resources": _resources(proxy.resources, options.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": _RUN, "mountPath": str(contract.RUN_DIRECTORY)},
            {"name": _TOKEN, "mountPath": str(contract.TOKEN_FILE.parent), "readOnly": True},
            {"name": _CA, "mountPath": str(contract.CA_FILE.parent), "readOnly": True},
        ],
    }


def _resources(asked: ResourceRequirements, default: ResourceRequirements) -> dict[str, Any]:
    chosen = asked if asked.requests or asked.limits else default
    parts = {"requests": chosen.requests, "limits": chosen.limits}
    return {part: {name: str(value) for name, value in amounts.items()} for part, amounts in parts.items() if amounts}


def _environment(gateway: Gateway, options: FleetOptions, *, settle: timedelta, drain: timedelta) -> list[dict[str, Any]]:
    values = {
        contract.XDS_ADDRESS: options.xds_address,
        contract.XDS_SERVER_NAME: options.xds_server_name,
        contract.GATEWAY: f"{gateway.metadata.namespace}/{gateway.metadata.name}",
        contract.SETTLE_SECONDS: str(int(settle.total_seconds())),
        contract.DRAIN_SECONDS: str(int(drain.total_seconds())),
        contract.LOG_LEVEL: options.log_level,
        contract.LOG_FORMAT: options.log_format,
    }
    fields = {
        contract.POD_NAME: "metadata.name",
        contract.NODE_NAME: "spec.nodeName",
        # Kubernetes 1.35 and newer give a pod the zone of its node as a label; before, it stays empty.
        contract.ZONE: f"metadata.labels['{_ZONE}']",
    }
    resources = {contract.CONCURRENCY: "limits.cpu", contract.MEMORY_BYTES: "limits.memory"}
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        *({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}} for name, path in fields.items()),
        *(
            {"name": name, "valueFrom": {"resourceFieldRef": {"containerName": CONTAINER, "resource": resource}}}
            for name, resource in resources.items()
        ),
    ]


def _volumes(gateway: Gateway) -> list[dict[str, Any]]:
    token = {"audience": contract.TOKEN_AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": contract.TOKEN_FILE.name}
    return [
        {"name": _RUN, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": _TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": _CA, "configMap": {"name": fleet_name(gateway)}},
    ]
