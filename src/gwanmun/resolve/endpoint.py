"""Where a backend is: EndpointSlices of a Service, endpoints of a Backend."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from gwanmun import ir
from gwanmun.api import Backend, EndpointSlice
from gwanmun.api.core import ServicePort
from gwanmun.api.discovery import Endpoint as SliceEndpoint
from gwanmun.api.discovery import EndpointHints
from gwanmun.api.gwanmun_v1alpha1 import GWANMUN_GROUP
from gwanmun.memo import Query
from gwanmun.names import ClusterKey, ObjectKey
from gwanmun.resolve.backend import service_port, service_view
from gwanmun.resolve.pool import POOL_KIND, node_zone, pool_endpoints
from gwanmun.resolve.world import find, read

ADDRESS_TYPES = ("IPv4", "IPv6", "FQDN")


class Candidate(NamedTuple):
    """An endpoint of one slice. `state` is `leaving` where it only finishes what it has begun (serving, terminating)."""

    state: Literal["ready", "leaving"]
    address_type: str
    endpoint: ir.Endpoint


def endpoints(q: Query, key: ClusterKey) -> ir.Endpoints:
    """The addresses behind a backend, sorted; empty where there is none."""
    kind = ENDPOINT_KINDS.get((key.backend.group, key.backend.kind))
    return ir.Endpoints(key, kind(q, key) if kind is not None else ())


def _service_endpoints(q: Query, key: ClusterKey) -> tuple[ir.Endpoint, ...]:
    view = q.get(service_view, key.backend)
    port = service_port(view, key.port, key.protocol) if view is not None else None
    if view is None or port is None:
        return ()
    slices = find(q, "service", (key.backend.namespace, key.backend.name))
    candidates = [candidate for name in slices for candidate in q.get(slice_endpoints, name, port)]
    ready = [candidate for candidate in candidates if candidate.state == "ready"]
    # As kube-proxy does: better an endpoint that is on its way out than none at all.
    return _merged(_one_family(ready or candidates, ipv6_first=view.ipv6_first))


def slice_endpoints(q: Query, name: ObjectKey, port: ServicePort) -> tuple[Candidate, ...]:
    """The usable endpoints of one EndpointSlice for a port of its Service, matched by the port's name as Kubernetes does."""
    found = read(q, name, EndpointSlice)
    if found is None or found.address_type not in ADDRESS_TYPES:
        return ()
    number = _number(found, port)
    if number is None:
        return ()
    return tuple(
        Candidate(state, found.address_type, _endpoint(q, endpoint, number))
        for endpoint in found.endpoints or ()
        if endpoint.addresses and (state := _state(endpoint)) is not None
    )


def _number(found: EndpointSlice, port: ServicePort) -> int | None:
    for candidate in found.ports or ():
        if (candidate.name or "") == (port.name or "") and candidate.protocol == port.protocol:
            if candidate.port is not None:
                return candidate.port
            return port.target_port if isinstance(port.target_port, int) else port.port  # null stands for every port
    return None


def _state(endpoint: SliceEndpoint) -> Literal["ready", "leaving"] | None:
    """Unknown conditions are read as the API asks: ready, serving, not terminating."""
    conditions = endpoint.conditions
    if conditions.ready is None or conditions.ready:
        return "ready"
    return "leaving" if conditions.terminating and conditions.serving is not False else None


def _endpoint(q: Query, endpoint: SliceEndpoint, port: int) -> ir.Endpoint:
    node = endpoint.node_name or ""
    hints = endpoint.hints or EndpointHints()
    return ir.Endpoint(
        address=endpoint.addresses[0].lower(),
        port=port,
        zone=endpoint.zone or (q.get(node_zone, node) if node else ""),
        node=node,
        hints=tuple(sorted({zone.name for zone in hints.for_zones or ()})),
        node_hints=tuple(sorted({node.name for node in hints.for_nodes or ()})),
    )


def _one_family(candidates: list[Candidate], *, ipv6_first: bool) -> Iterable[ir.Endpoint]:
    """A dual-stack Service lists every pod twice: those of the Service's first IP family that is there, and host names."""
    families = ("IPv6", "IPv4") if ipv6_first else ("IPv4", "IPv6")
    there = {candidate.address_type for candidate in candidates}
    chosen = next((family for family in families if family in there), None)
    return (candidate.endpoint for candidate in candidates if candidate.address_type in (chosen, "FQDN"))


def _merged(found: Iterable[ir.Endpoint]) -> tuple[ir.Endpoint, ...]:
    """Sorted, each address and port once. While a pod moves between slices it is in both for a moment."""
    merged: dict[tuple[str, int], ir.Endpoint] = {}
    for endpoint in sorted(found):
        merged[endpoint.address, endpoint.port] = endpoint  # the last has a zone, where one of them has
    return tuple(merged.values())


def _backend_endpoints(q: Query, key: ClusterKey) -> tuple[ir.Endpoint, ...]:
    obj = read(q, key.backend, Backend)
    if obj is None:
        return ()
    return _merged(
        ir.Endpoint(
            (endpoint.address or endpoint.hostname or "").lower(), endpoint.port, endpoint.zone or "", weight=endpoint.weight
        )
        for endpoint in obj.spec.endpoints
        if endpoint.weight > 0 and key.port in (0, endpoint.port) and (endpoint.address or endpoint.hostname)
    )


ENDPOINT_KINDS: Mapping[tuple[str, str], Callable[[Query, ClusterKey], tuple[ir.Endpoint, ...]]] = {
    ("", "Service"): _service_endpoints,
    (GWANMUN_GROUP, "Backend"): _backend_endpoints,
    POOL_KIND: pool_endpoints,
}
"""Where the endpoints of each kind of backend are, by (group, kind); as many kinds as `backend.BACKEND_KINDS`."""
