"""TLSRoute, TCPRoute and UDPRoute rules -> ir.L4Rule."""

from gwanmun import ir
from gwanmun.memo import Query
from gwanmun.names import NamespacedName, ObjectKey


def l4_rules(q: Query, route: ObjectKey, gateway: NamespacedName) -> tuple[ir.L4Rule, ...]:
    """The rules of a TLSRoute, TCPRoute or UDPRoute as `gateway` serves them, in the order of the spec."""
    return ()
