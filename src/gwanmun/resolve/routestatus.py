"""The status of a route: for each parent that is ours, what was accepted and what resolved."""

from gwanmun.memo import Query
from gwanmun.names import ObjectKey
from gwanmun.resolve.status import RouteStatus


def route_status(q: Query, route: ObjectKey) -> RouteStatus | None:
    """The status of a route of any kind; None where it does not exist or has no parent of ours."""
    return None
