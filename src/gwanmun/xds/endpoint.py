"""Where a cluster is: endpoints, near ones first where that is wanted.

Deliberately absent: health (whether an endpoint is ready is known already) and what a cluster is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gwanmun.ir import Endpoint, Endpoints
from gwanmun.protos import pb, serialize
from gwanmun.xds.types import Fields, number

_NOWHERE: Final = Endpoint("127.0.0.1", 9)
"""The discard port of this machine: datagrams for a backend that is not there are dropped."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the proxy is."""

    zone: str = ""
    node: str = ""


def load_assignment(name: str, endpoints: Endpoints | None, prefer: Literal["zone", "node"] | None, place: Place) -> Fields:
    """A ClusterLoadAssignment. Near endpoints take everything; only when there is none left does traffic go further."""
    serving = [one for one in endpoints.endpoints if one.ready and one.weight > 0] if endpoints is not None else []
    groups = [group for group in _by_distance(serving, prefer, place) if group]
    localities = [
        {"locality": {"zone": zone}, "priority": priority, "lb_endpoints": [_lb_endpoint(one) for one in members]}
        for priority, group in enumerate(groups)
        for zone, members in _by_zone(group)
    ]
    return {"cluster_name": name, "endpoints": localities}


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


def _by_distance(serving: Sequence[Endpoint], prefer: Literal["zone", "node"] | None, place: Place) -> Iterable[list[Endpoint]]:
    """Hints say it best, if all endpoints have them (as kube-proxy does it); then what the backend prefers."""
    if place.zone and serving and all(one.hints for one in serving):
        return _two(serving, lambda one: place.zone in one.hints)
    if prefer == "node" and place.node:
        near, rest = _two(serving, lambda one: one.node == place.node)
        return [near, *_two(rest, lambda one: bool(place.zone) and one.zone == place.zone)]
    if prefer is not None and place.zone:
        return _two(serving, lambda one: one.zone == place.zone)
    return [list(serving)]


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
