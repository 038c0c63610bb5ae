"""The status of a route: for each parent that is ours, what was accepted and what resolved."""

from collections.abc import Iterable

from gwanmun.memo import Query
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.attach import attachments, route_head
from gwanmun.resolve.fault import Fault
from gwanmun.resolve.httproute import resolved_http
from gwanmun.resolve.l4route import resolved_l4
from gwanmun.resolve.status import Condition, ParentStatus, RouteStatus
from gwanmun.resolve.types import Attachment

HTTP_KINDS = ("HTTPRoute", "GRPCRoute")
INVALID = ("dropped", "answers 500")
LONGEST_MESSAGE = 32768  # characters; the API server takes no longer one


def route_status(q: Query, route: ObjectKey) -> RouteStatus | None:
    """The status of a route of any kind; None where it does not exist or has no parent of ours."""
    head = q.get(route_head, route)
    if head is None:
        return None
    ours = [entry for entry in q.get(attachments, route) if entry.gateway is not None]
    if not ours:
        return None
    return RouteStatus(
        head.generation,
        tuple(ParentStatus(entry.parent, entry.controller_name, _conditions(q, route, entry)) for entry in ours),
    )


def _conditions(q: Query, route: ObjectKey, attachment: Attachment) -> tuple[Condition, ...]:
    assert attachment.gateway is not None
    faults, count = _faults(q, route, attachment.gateway)
    return (*_accepted(attachment.accepted, faults, count), _resolved_refs(faults))


def _faults(q: Query, route: ObjectKey, gateway: NamespacedName) -> tuple[tuple[Fault, ...], int]:
    """What is wrong with the rules of a route as `gateway` serves it, and how many rules there are."""
    if route.kind in HTTP_KINDS:
        http = q.get(resolved_http, route, gateway)
        return http.faults, http.count
    l4 = q.get(resolved_l4, route, gateway)
    return l4.faults, l4.count


def _accepted(attached: Condition, faults: tuple[Fault, ...], count: int) -> tuple[Condition, ...]:
    """Accepted, and PartiallyInvalid where some rules are invalid and others serve."""
    if not attached.status:
        return (attached,)
    about_rules = [fault for fault in faults if fault.condition == "Accepted"]
    invalid = [fault for fault in about_rules if fault.effect in INVALID]
    rules = sorted({fault.rule for fault in invalid})
    if rules and len(rules) == count:
        return (Condition("Accepted", False, invalid[0].reason, _text(invalid)),)
    harmless = [fault for fault in about_rules if fault.effect not in INVALID]
    accepted = Condition("Accepted", True, "Accepted", _text(harmless) or attached.message)
    if not rules:
        return (accepted,)
    dropped = ", ".join(f"{rule} ({_becomes(rule, invalid)})" for rule in rules)
    # The Gateway API wants this beginning.
    message = _cut(f"Dropped Rule {dropped}: {_text(invalid)}")
    return accepted, Condition("PartiallyInvalid", True, "UnsupportedValue", message)


def _becomes(rule: int, faults: list[Fault]) -> str:
    return "dropped" if any(fault.rule == rule and fault.effect == "dropped" for fault in faults) else "answers 500"


def _resolved_refs(faults: tuple[Fault, ...]) -> Condition:
    unresolved = [fault for fault in faults if fault.condition == "ResolvedRefs"]
    if not unresolved:
        return Condition("ResolvedRefs", True, "ResolvedRefs")
    return Condition("ResolvedRefs", False, unresolved[0].reason, _text(unresolved))


def _text(faults: Iterable[Fault]) -> str:
    return _cut("; ".join(dict.fromkeys(fault.message for fault in faults)))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 3]}..."
