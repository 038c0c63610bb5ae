"""Where a Gateway can be reached, and what that means for its status. Pure.

`resolve` says what a Gateway asks for and whether there is configuration for it; only here is it known whether a load
balancer has given it an address and whether a proxy is there that serves.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Literal

from gwanmun.api import Gateway, Service

Document = dict[str, Any]
IP: Final = "IPAddress"
HOSTNAME: Final = "Hostname"
_MOST_ADDRESSES: Final = 16


@dataclass(frozen=True, slots=True)
class Address:
    """One entry of status.addresses."""

    type: Literal["IPAddress", "Hostname"]
    value: str


@dataclass(frozen=True, slots=True)
class Placement:
    """`problem` is the reason and message with which the Gateway is not Programmed; None where it is reachable."""

    addresses: tuple[Address, ...] = ()
    problem: tuple[str, str] | None = None


def placement(gateway: Gateway, service: Service | None, *, ready: int, nodes: tuple[str, ...] = ()) -> Placement:
    """Where the Gateway is, behind its Service with so many ready proxies. `nodes` are addresses for a NodePort Service."""
    if service is None:
        return Placement(problem=("Pending", "its Service has not been made yet"))
    name = f"{service.metadata.namespace}/{service.metadata.name}"
    asked = [one.value for one in gateway.spec.addresses if one.type == IP and one.value and _is_ip(one.value)]
    given = _given(service, nodes)
    if asked:
        # The first is asked of the load balancer, the others the nodes answer to (Service spec.externalIPs).
        first, *others = asked
        usable = {first: IP} if service.spec.type != "LoadBalancer" or any(one.value == first for one in given) else {}
        found = tuple(Address("IPAddress", value) for value in [*usable, *others])
        if not usable:
            message = f'spec.addresses: "{first}" has not been given to Service {name} by its load balancer'
            return Placement(found[:_MOST_ADDRESSES], ("AddressNotUsable", message))
    else:
        found = given
        if not found:
            return Placement(problem=("AddressNotAssigned", f"no load balancer has given Service {name} an address yet"))
    if not ready:
        return Placement(found[:_MOST_ADDRESSES], ("Pending", f"no proxy behind Service {name} is ready"))
    return Placement(found[:_MOST_ADDRESSES])


def placed(document: Document, where: Placement) -> Document:
    """The Gateway's status document, completed."""
    addresses = [{"type": address.type, "value": address.value} for address in where.addresses]
    conditions = document.get("conditions", [])
    if where.problem is not None:
        conditions = [_not_programmed(condition, *where.problem) for condition in conditions]
    return {**document, "addresses": addresses, "conditions": conditions}


def _not_programmed(condition: Document, reason: str, message: str) -> Document:
    if condition["type"] != "Programmed" or condition["status"] != "True":
        return condition
    return {**condition, "status": "False", "reason": reason, "message": message}


def _given(service: Service, nodes: tuple[str, ...]) -> tuple[Address, ...]:
    match service.spec.type:
        case "LoadBalancer":
            found = []
            for ingress in service.status.load_balancer.ingress:
                if ingress.ip:
                    found.append(Address("IPAddress", ingress.ip))
                elif ingress.hostname:
                    found.append(Address("Hostname", ingress.hostname))
            return tuple(found)
        case "NodePort":
            return tuple(Address("IPAddress", value) for value in nodes)
        case _:
            cluster_ips = service.spec.cluster_ips or ((service.spec.cluster_ip,) if service.spec.cluster_ip else ())
            return tuple(Address("IPAddress", value) for value in cluster_ips if value and value != "None")


def _is_ip(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True
