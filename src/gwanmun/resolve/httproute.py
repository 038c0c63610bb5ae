"""HTTPRoute and GRPCRoute rules -> ir.Rule."""

from gwanmun import ir
from gwanmun.memo import Query
from gwanmun.names import NamespacedName, ObjectKey


def http_rules(q: Query, route: ObjectKey, gateway: NamespacedName) -> tuple[ir.Rule, ...]:
    """One ir.Rule for each match of an HTTPRoute or GRPCRoute as `gateway` serves it, in the order of the spec."""
    return ()
