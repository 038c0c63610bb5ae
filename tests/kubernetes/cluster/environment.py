"""A container's environment, and what the downward API says of a pod. Pure; looks objects up in what it is given."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .kube import Key, Object

_QUANTITY = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_.-][A-Za-z0-9_.-]*)\))")
_NODE_RESOURCES = {"cpu": "64", "memory": "64Gi"}


class NotYet(Exception):
    """Something that the pod refers to does not exist (yet); the container waits, as under a kubelet."""


@dataclass(frozen=True)
class World:
    """What a pod may refer to."""

    secrets: Mapping[Key, Object]
    config_maps: Mapping[Key, Object]

    def secret(self, namespace: str, name: str, *, optional: bool = False) -> dict[str, bytes]:
        """The data of a Secret, decoded; {} for an absent optional one, else NotYet."""
        found = self._find(self.secrets, "secret", namespace, name, optional=optional)
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}

    def config_map(self, namespace: str, name: str, *, optional: bool = False) -> dict[str, bytes]:
        """The data of a ConfigMap; {} for an absent optional one, else NotYet."""
        found = self._find(self.config_maps, "configmap", namespace, name, optional=optional)
        text = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        return text | {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}

    @staticmethod
    def _find(table: Mapping[Key, Object], kind: str, namespace: str, name: str, *, optional: bool) -> Object:
        found = table.get((namespace, name))
        if found is None and not optional:
            raise NotYet(f'{kind} "{name}" not found')
        return found or {}


def container_environment(pod: Object, container: Object, world: World) -> dict[str, str]:
    """envFrom, then env in order with $(NAME) expanded. NotYet names what is missing."""
    namespace = pod["metadata"]["namespace"]
    result: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        prefix = source.get("prefix", "")
        for kind, look_up in (("secretRef", world.secret), ("configMapRef", world.config_map)):
            if kind in source:
                data = look_up(namespace, source[kind]["name"], optional=source[kind].get("optional", False))
                result |= {prefix + key: value.decode() for key, value in data.items()}
    for variable in container.get("env") or []:
        if "valueFrom" in variable:
            value = _value_from(pod, container, variable["valueFrom"], world)
            if value is not None:
                result[variable["name"]] = value
        else:
            result[variable["name"]] = expand(variable.get("value", ""), result)
    return result


def expand(text: str, environment: Mapping[str, str]) -> str:
    """$(NAME) becomes its value where there is one and stays where there is none; $$ is a dollar sign."""

    def replacement(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return environment.get(match[2], match[0])

    return _REFERENCE.sub(replacement, text)


def field_value(pod: Object, path: str) -> str:
    """A field of the downward API, such as metadata.labels['app'] or status.podIP. NotYet for one that is unknown here."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = metadata.get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
        "status.hostIP": status.get("hostIP", ""),
        "status.hostIPs": status.get("hostIP", ""),
    }
    if path not in known:
        raise NotYet(f"fieldPath {path!r} is not known to this node agent")
    return str(known[path])


def resource_value(container: Object, reference: Object) -> str:
    """limits.cpu, requests.memory ... in units of the divisor, rounded up; without a limit, the node's."""
    kind, _, resource = reference["resource"].partition(".")
    declared = (container.get("resources") or {}).get(kind) or {}
    amount = declared.get(resource, _NODE_RESOURCES.get(resource, "0"))
    divisor = reference.get("divisor") or "1"
    return str(math.ceil(_quantity(amount) / (_quantity(divisor) or 1.0)))


def _value_from(pod: Object, container: Object, source: Object, world: World) -> str | None:
    namespace = pod["metadata"]["namespace"]
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_value(container, source["resourceFieldRef"])
    kind, look_up = ("secret", world.secret) if "secretKeyRef" in source else ("configmap", world.config_map)
    reference = source.get("secretKeyRef") or source["configMapKeyRef"]
    optional = reference.get("optional", False)
    data = look_up(namespace, reference["name"], optional=optional)
    if reference["key"] not in data:
        if optional:
            return None
        raise NotYet(f'key "{reference["key"]}" not found in {kind} "{reference["name"]}"')
    return data[reference["key"]].decode()


def _quantity(text: str) -> float:
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    return float(match[1]) * _QUANTITY.get(match[2], 1.0) if match else 0.0
