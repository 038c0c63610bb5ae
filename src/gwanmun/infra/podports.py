"""Which port of a proxy's pod serves each port of its Gateway. Pure.

The pod's Service leads the port that clients know to this one, and the proxy's listener is bound to it: both ask here.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from gwanmun.infra.ports import Transport

METRICS_PORT: Final = 9090
ADMIN_PORT: Final = 19000
RESERVED: Final = frozenset({METRICS_PORT, ADMIN_PORT})
"""Ports of the pod that are the proxy's own."""

_FIRST_UNPRIVILEGED: Final = 1024
_HIGHEST: Final = 65_535

PodPorts = Mapping[tuple[int, Transport], int]


def pod_ports(ports: Iterable[tuple[int, Transport]]) -> PodPorts:
    """The pod's port by the Gateway's port and transport: the same number, but 10000 more for what needs privileges."""
    named = set(ports)
    found: dict[tuple[int, Transport], int] = {}
    taken: set[tuple[int, Transport]] = set()
    for number, transport in sorted(named):
        for candidate in _candidates(number):
            key = (candidate, transport)
            if key not in taken and candidate not in RESERVED and (candidate == number or key not in named):
                found[number, transport] = candidate
                taken.add(key)
                break
    return found


def _candidates(number: int) -> Iterator[int]:
    if number >= _FIRST_UNPRIVILEGED:
        yield number
    yield from range(number + 10_000, _HIGHEST + 1, 10_000)
    yield from range(_HIGHEST, _FIRST_UNPRIVILEGED, -1)
