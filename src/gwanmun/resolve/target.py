"""Targets of rules, for all kinds of routes: a backendRef that can be sent to, or what is wrong with it."""

from gwanmun.api.references import BackendRef
from gwanmun.memo import Query
from gwanmun.resolve.backend import Destination, Referrer, resolve_ref, unreachable
from gwanmun.resolve.fault import Fault, Refusal

LARGEST_WEIGHT = 1_000_000
"""The Gateway API's bound."""


def find_target(
    q: Query, referrer: Referrer, ref: BackendRef, *, rule: int, where: str
) -> tuple[Destination | None, list[Fault]]:
    """What a backendRef of a rule sends to; None where its share has to answer 500."""
    found = resolve_ref(q, referrer, ref)
    if isinstance(found, Refusal):
        return None, [Fault(rule, "ResolvedRefs", "partly served", found.reason, f"{where}: {found.message}")]
    if not found.reachable:
        # The reference itself is sound, so ResolvedRefs stays true.
        return None, [Fault(rule, "Accepted", "partly served", "UnsupportedValue", f"{where}: {unreachable(found.cluster)}")]
    return found, []


def target_label(referrer: Referrer, ref: BackendRef) -> str:
    """A backend as the user names it, for explanations."""
    port = f":{ref.port}" if ref.port is not None else ""
    return f"{ref.namespace or referrer.namespace}/{ref.name}{port}"
