"""Where a cluster is: endpoints, near ones first where that is wanted.

Deliberately absent: health (whether an endpoint is ready is known already) and what a cluster is.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gwanmun.ir import Backend, Endpoint, Endpoints, Prefer
from gwanmun.protos import pb, serialize
from gwanmun.xds import names
from gwanmun.xds.types import Fields, number

NEAR_WEIGHT: Final = 1000
ACTIVE_REQUEST_BIAS: Final = 3.0
"""Near endpoints count a thousand times as much as those further away, divided by the cube of the requests that each has under
way: so one further away takes a request once near ones have ten times as much to do, and next to nothing before."""

_LARGEST_SUM: Final = 2**32 - 1
"""Of the weights of one zone, for Envoy."""

_NOWHERE: Final = Endpoint("127.0.0.1", 9)
"""The discard port of this machine: datagrams for a backend that is not there are dropped."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the proxy is."""

    zone: str = ""
    node: str = ""


def spills(backend: Backend) -> bool:
    """Whether endpoints further away help when near ones have too much to do. How many connections a TCP server has says
    nothing of that."""
    return backend.prefer is not None and backend.protocol in ("http1", "http2")


def depends_on_node(backend: Backend, endpoints: Endpoints | None) -> bool:
    """Whether proxies of one zone may have to be told different things of where a backend is."""
    return backend.prefer == "node" or (endpoints is not None and any(one.node_hints for one in endpoints.endpoints))


def near_node(endpoints: Endpoints | None, node: str) -> bool:
    """Whether some endpoint is on the node or meant for it. Where none is, it makes no difference to know the node."""
    return endpoints is not None and any(one.node == node or node in one.node_hints for one in endpoints.endpoints)


def load_assignment(backend: Backend, endpoints: Endpoints | None, place: Place) -> Fields:
    """A ClusterLoadAssignment. Near endpoints take everything while there are some, or (see `spills`) while they can."""
    serving = [one for one in endpoints.endpoints if one.ready and one.weight > 0] if endpoints is not None else []
    groups = [group for group in _by_distance(serving, backend.prefer, place) if group]
    if spills(backend):
        groups = _overlapping(groups)
    localities = [
        {"locality": {"zone": zone}, "priority": priority, "lb_endpoints": [_lb_endpoint(one) for one in members]}
        for priority, group in enumerate(groups)
        for zone, members in _by_zone(group)
    ]
    return {"cluster_name": names.cluster(backend.key), "endpoints": localities}


def weighted_assignment(name: str, shares: Sequence[tuple[int, Endpoints | None]]) -> Fields:
    """A ClusterLoadAssignment in which each backend is a locality that gets its share (for datagrams, whose filter knows no
    weighted clusters). A backend without endpoints keeps its share, which is dropped."""
    localities = []
    for position, (weight, endpoints) in enumerate(shares):
        serving = [one for one in endpoints.endpoints if one.ready] if endpoints is not None else []
        localities.append(
            {
                "locality": {"sub_zone": str(position)},
                "load_balancing_weight": number(weight),
                "lb_endpoints": [_lb_endpoint(one) for one in serving or (_NOWHERE,)],
            }
        )
    return {"cluster_name": name, "endpoints": localities}


def serialize_assignment(fields: Fields) -> bytes:
    return serialize(pb("envoy.config.endpoint.v3.ClusterLoadAssignment")(**fields))


def _by_distance(serving: Sequence[Endpoint], prefer: Prefer | None, place: Place) -> Iterable[list[Endpoint]]:
    """Hints say it best, if all endpoints have them, and those for nodes before those for zones (as kube-proxy does it); then
    what the backend prefers."""
    if place.node and all(one.node_hints for one in serving):
        near, rest = _two(serving, lambda one: place.node in one.node_hints)
        return [near, *_by_zone_distance(rest, prefer, place)]
    if place.node and prefer == "node" and not _hinted(serving, place):
        near, rest = _two(serving, lambda one: one.node == place.node)
        return [near, *_by_zone_distance(rest, prefer, place)]
    return _by_zone_distance(serving, prefer, place)


def _by_zone_distance(serving: Sequence[Endpoint], prefer: Prefer | None, place: Place) -> Iterable[list[Endpoint]]:
    if _hinted(serving, place):
        return _two(serving, lambda one: place.zone in one.hints)
    if prefer in ("zone", "node") and place.zone:
        return _two(serving, lambda one: one.zone == place.zone)
    return [list(serving)]


def _hinted(serving: Sequence[Endpoint], place: Place) -> bool:
    return bool(place.zone) and all(one.hints for one in serving)


def _overlapping(groups: list[list[Endpoint]]) -> list[list[Endpoint]]:
    """Half of the next group helps in the first one. The other half stays apart, for what is tried again: a retry goes to
    another priority, and Envoy takes an endpoint in one priority only. More helpers than near ones would take a share that
    is worth mentioning at ten requests each."""
    match groups:
        case [near, further, *rest]:
            helping = further[::2][: len(near)]
            apart = [one for index, one in enumerate(further) if index % 2 or index >= 2 * len(near)]
            # Weights that people give are 1,000,000 at most: too much for Envoy when it is a thousandfold.
            shrink = max(1, math.ceil(sum(one.weight for one in near) * NEAR_WEIGHT / _LARGEST_SUM))
            first = [replace(one, weight=one.weight * NEAR_WEIGHT // shrink) for one in near]
            first += [replace(one, weight=max(1, one.weight // shrink)) for one in helping]
            return [group for group in (first, apart, *rest) if group]
        case _:
            return groups


def _two(serving: Sequence[Endpoint], near: Callable[[Endpoint], bool]) -> list[list[Endpoint]]:
    return [[one for one in serving if near(one)], [one for one in serving if not near(one)]]


def _by_zone(group: Sequence[Endpoint]) -> list[tuple[str, list[Endpoint]]]:
    zones: dict[str, list[Endpoint]] = {}
    for one in group:
        zones.setdefault(one.zone, []).append(one)
    return sorted(zones.items())


def _lb_endpoint(one: Endpoint) -> Fields:
    socket = {"address": one.address, "port_value": one.port}
    fields: Fields = {"endpoint": {"address": {"socket_address": socket}}}
    if one.weight != 1:
        fields["load_balancing_weight"] = number(one.weight)
    return fields
