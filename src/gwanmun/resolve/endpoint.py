"""Where a backend is: EndpointSlices of a Service, endpoints of a Backend."""

from gwanmun import ir
from gwanmun.memo import Query
from gwanmun.names import ClusterKey


def endpoints(q: Query, key: ClusterKey) -> ir.Endpoints:
    """The addresses behind a backend, sorted; empty where there is none."""
    return ir.Endpoints(key)
