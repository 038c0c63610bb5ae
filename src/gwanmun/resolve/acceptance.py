"""Whether a Gateway as a whole is taken on: its class is ours, its own parameters lead somewhere, its addresses can be had.

A Gateway that is refused has no place in the model, and its status says why.
"""

from ipaddress import ip_address

from gwanmun.api import Gateway
from gwanmun.api.gateway import GatewaySpec
from gwanmun.memo import Query
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.gatewayclass import class_controller, referenced_parameters
from gwanmun.resolve.status import Condition
from gwanmun.resolve.world import read
from gwanmun.resources.snapshot import GATEWAY_GROUP

IP_ADDRESS = "IPAddress"


def gateway_key(gateway: NamespacedName) -> ObjectKey:
    return ObjectKey(GATEWAY_GROUP, "Gateway", *gateway)


def gateway_spec(q: Query, gateway: NamespacedName) -> GatewaySpec | None:
    """The spec of a Gateway whose class is ours; None for another's, or where there is none."""
    obj = read(q, gateway_key(gateway), Gateway)
    if obj is None or q.get(class_controller, obj.spec.gateway_class_name) is None:
        return None
    return obj.spec


def refusal(q: Query, gateway: NamespacedName) -> Condition | None:
    """The condition Accepted of a Gateway that is refused as a whole; None where nothing but its listeners decides."""
    spec = q.get(gateway_spec, gateway)
    if spec is None:
        return None
    ref = spec.infrastructure.parameters_ref if spec.infrastructure else None
    if ref is not None:
        found = referenced_parameters(q, ref.group, ref.kind, ref.name)
        if isinstance(found, str):
            return Condition("Accepted", False, "InvalidParameters", f"spec.infrastructure.parametersRef: {found}")
    for i, address in enumerate(spec.addresses):
        if address.type != IP_ADDRESS:
            message = f'spec.addresses[{i}].type: "{address.type}" is not supported; "{IP_ADDRESS}" is'
            return Condition("Accepted", False, "UnsupportedAddress", message)
    return None


def addresses(q: Query, gateway: NamespacedName) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The IP addresses that a Gateway asks for, and what it asks for that is none. An entry without a value takes any."""
    spec = q.get(gateway_spec, gateway)
    values = [address.value for address in spec.addresses if address.value] if spec is not None else []
    usable = tuple(dict.fromkeys(value for value in values if _is_ip(value)))
    return usable, tuple(value for value in values if not _is_ip(value))


def _is_ip(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True
