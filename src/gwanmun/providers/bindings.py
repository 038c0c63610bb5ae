"""`--bind`: endpoints of Services where there is no cluster, given by hand as EndpointSlices.

`ai-inference/vllm=127.0.0.1:8001` binds every port of that Service, `ai-inference/vllm:8000=127.0.0.1:8001` one port
(by number or name). Given several times, the Service has several endpoints.
"""

import ipaddress
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gwanmun.api import EndpointSlice, Object, ObjectMeta, Service
from gwanmun.api.discovery import SERVICE_NAME_LABEL, Endpoint, EndpointPort
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.providers.fileset import SourceProblem
from gwanmun.resources import key_of

_FORM = re.compile(
    r"(?P<namespace>[a-z0-9.-]+)/(?P<name>[a-z0-9.-]+)(:(?P<port>[a-z0-9-]+))?=(?P<address>\[[^]]+\]|[^:]+):(?P<target>\d+)"
)


@dataclass(frozen=True, slots=True)
class ServiceBinding:
    """`port` is a Service port's number or name as text, None for every port."""

    service: NamespacedName
    address: str
    target: int
    port: str | None = None


def parse_binding(text: str) -> ServiceBinding:
    """From the text of a `--bind` option. ValueError says what was expected."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is not NAMESPACE/SERVICE[:PORT]=ADDRESS:PORT such as ai/vllm=127.0.0.1:8001')
    address = found["address"].strip("[]")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f'"{text}": {address} is not an IP address') from None
    target = int(found["target"])
    if not 0 < target < 65536:
        raise ValueError(f'"{text}": {target} is not a port (1 to 65535)')
    return ServiceBinding(NamespacedName(found["namespace"], found["name"]), address, target, found["port"])


def bound_slices(
    bindings: Sequence[ServiceBinding], objects: Mapping[ObjectKey, Object]
) -> tuple[dict[ObjectKey, Object], list[SourceProblem]]:
    """The EndpointSlices that the bindings stand for, given the Services that there are."""
    slices: dict[ObjectKey, Object] = {}
    problems = []
    by_service: dict[NamespacedName, list[ServiceBinding]] = defaultdict(list)
    for binding in bindings:
        by_service[binding.service].append(binding)
    for name, of_service in by_service.items():
        service = objects.get(ObjectKey("", "Service", name.namespace, name.name))
        if not isinstance(service, Service):
            problems.append(SourceProblem(f"--bind {name}", f"there is no Service {name}"))
            continue
        known = {str(port.port) for port in service.spec.ports} | {port.name for port in service.spec.ports if port.name}
        for binding in of_service:
            if binding.port is not None and binding.port not in known:
                there = ", ".join(sorted(known))
                problems.append(SourceProblem(f"--bind {name}:{binding.port}", f"Service {name} has the ports {there}"))
        for made in _slices(service, of_service):
            slices[key_of(made)] = made
    return slices, problems


def _slices(service: Service, bindings: Sequence[ServiceBinding]) -> list[EndpointSlice]:
    """One slice for each (port of the Service, target port, address family): a slice's ports hold for all its endpoints."""
    groups: dict[tuple[int, str | None, int, int], list[str]] = defaultdict(list)
    for port in service.spec.ports:
        for binding in bindings:
            if binding.port in (None, str(port.port), port.name):
                family = ipaddress.ip_address(binding.address).version
                groups[port.port, port.name, binding.target, family].append(binding.address)
    return [
        EndpointSlice(
            metadata=ObjectMeta(
                name=f"{service.metadata.name}-bound-{number}-{target}-ipv{family}",
                namespace=service.metadata.namespace,
                labels={SERVICE_NAME_LABEL: service.metadata.name},
            ),
            address_type=f"IPv{family}",
            endpoints=tuple(Endpoint(addresses=(address,)) for address in dict.fromkeys(addresses)),
            ports=(EndpointPort(name=name, port=target),),
        )
        for (number, name, target, family), addresses in groups.items()
    ]
