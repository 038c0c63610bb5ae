"""What nobody here answers for: routes of Gateways that are not there, Gateways of classes that are not ours.

An API server's objects without a controller keep an empty status, since another controller may come for them. On one machine
there is no other, and silence would leave people searching for a mistyped name.
"""

from collections.abc import Iterator, Sequence

from gwanmun.api import GatewayClass
from gwanmun.api.problem import any_of, show
from gwanmun.names import ObjectKey
from gwanmun.resolve.status import Statuses
from gwanmun.resources import Snapshot
from gwanmun.resources.snapshot import GATEWAY_GROUP


def unheard(snapshot: Snapshot, statuses: Statuses, controllers: Sequence[str]) -> Iterator[tuple[ObjectKey, str]]:
    """Each object that says something to nobody, and what would have to be there. `controllers` are the names that are ours."""
    for (index, value), members in snapshot.indexes.items():
        if index == "parent" and isinstance(value, ObjectKey) and value not in snapshot.objects:
            yield from ((route, f"spec.parentRefs: there is no {value}") for route in members)
        elif index == "class" and ObjectKey(GATEWAY_GROUP, "GatewayClass", "", str(value)) not in snapshot.objects:
            yield from ((gateway, f"spec.gatewayClassName: there is no GatewayClass {value}") for gateway in members)
        elif index == "gateway" and value not in snapshot.objects:
            yield from ((listeners, f"spec.parentRef: there is no {value}") for listeners in members)
        elif index == "target" and value not in snapshot.objects:
            yield from ((policy, f"spec.targetRefs: there is no {value}") for policy in members)
        elif index == "kind" and value == (GATEWAY_GROUP, "GatewayClass"):
            yield from ((key, _foreign(snapshot.get(key), controllers)) for key in members if key not in statuses)


def _foreign(gateway_class: object, controllers: Sequence[str]) -> str:
    assert isinstance(gateway_class, GatewayClass)
    name = gateway_class.spec.controller_name
    return (
        f"spec.controllerName: {show(name)} is another controller, so nothing serves its Gateways;"
        f" {any_of(list(map(show, controllers)))} is accepted here (or `gwanmun up --controller-name {name}` serves it)"
    )
