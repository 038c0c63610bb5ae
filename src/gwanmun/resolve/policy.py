"""BackendTLSPolicy: which one is in force for a port of a Service, and what its status says."""

from gwanmun.memo import Query
from gwanmun.names import ObjectKey
from gwanmun.resolve.status import PolicyStatus


def policy_status(q: Query, policy: ObjectKey) -> PolicyStatus | None:
    """One entry for each of our Gateways with a route to a target; None where the policy does not exist."""
    return None
