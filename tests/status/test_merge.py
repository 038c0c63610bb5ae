"""What is written into a status that is there already: ours, changed as little as possible."""

from typing import Any

import msgspec

from gwanmun.api.gateway import GatewayStatus
from gwanmun.api.references import RouteStatus
from gwanmun.kube import Present
from gwanmun.status.merge import merged

OURS = frozenset({"gwanmun.dev/gateway-controller"})
OLD, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"


def condition(kind: str = "Accepted", status: str = "True", *, generation: int = 1, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": kind, "message": "", "observedGeneration": generation, **fields}


def parent(gateway: str, *conditions: dict[str, Any], controller: str = "gwanmun.dev/gateway-controller") -> dict[str, Any]:
    reference = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway}
    return {"parentRef": reference, "controllerName": controller, "conditions": list(conditions)}


def there(document: dict[str, Any], type_: type[Any] = RouteStatus) -> Present:
    return Present("gateway.networking.k8s.io/v1", "u", "7", 1, msgspec.convert(document, type_))


def merge(wanted: dict[str, Any] | None, present: Present) -> dict[str, Any] | None:
    return merged(wanted, present, controllers=OURS, now=NOW)


def test_what_is_there_already_is_not_written() -> None:
    present = there({"parents": [parent("gw", condition(lastTransitionTime=OLD))]})
    assert merge({"parents": [parent("gw", condition())]}, present) is None


def test_a_first_status_has_the_time_of_now() -> None:
    written = merge({"parents": [parent("gw", condition())]}, there({}))
    assert written == {"parents": [parent("gw", condition(lastTransitionTime=NOW))]}


def test_the_time_moves_only_when_the_condition_turns() -> None:
    present = there(
        {"parents": [parent("gw", condition(lastTransitionTime=OLD), condition("ResolvedRefs", lastTransitionTime=OLD))]}
    )
    written = merge({"parents": [parent("gw", condition(message="more"), condition("ResolvedRefs", "False"))]}, present)
    assert written is not None
    accepted, resolved = written["parents"][0]["conditions"]
    assert accepted["lastTransitionTime"] == OLD
    assert resolved["lastTransitionTime"] == NOW


def test_other_controllers_entries_stay_as_and_where_they_are() -> None:
    other = parent("theirs", condition(lastTransitionTime=OLD), controller="other.example/x")
    present = there({"parents": [other, parent("gone", condition(lastTransitionTime=OLD)), parent("gw", condition("Old"))]})
    written = merge({"parents": [parent("new", condition()), parent("gw", condition())]}, present)
    assert written is not None
    assert [entry["parentRef"]["name"] for entry in written["parents"]] == ["theirs", "gw", "new"]
    assert written["parents"][0] == other


def test_one_parent_under_two_sections_is_two_entries() -> None:
    section = parent("gw", condition(lastTransitionTime=OLD))
    section["parentRef"]["sectionName"] = "https"
    written = merge({"parents": [parent("gw", condition())]}, there({"parents": [section]}))
    assert written == {"parents": [parent("gw", condition(lastTransitionTime=NOW))]}


def test_a_route_that_left_us_keeps_no_word_of_ours() -> None:
    other = parent("theirs", condition(lastTransitionTime=OLD), controller="other.example/x")
    assert merge(None, there({"parents": [parent("gw", condition()), other]})) == {"parents": [other]}
    assert merge(None, there({"parents": [other]})) is None
    assert merge(None, there({})) is None


def test_an_older_generation_is_never_told_after_a_newer_one() -> None:
    present = there({"parents": [parent("gw", condition(generation=5, lastTransitionTime=OLD))]})
    assert merge({"parents": [parent("gw", condition("Accepted", "False", generation=4))]}, present) is None
    assert merge({"parents": [parent("gw", condition("Accepted", "False", generation=5))]}, present) is not None


def test_a_gateway_is_all_ours() -> None:
    listener = {"name": "http", "supportedKinds": [], "attachedRoutes": 0, "conditions": [condition(lastTransitionTime=OLD)]}
    status = {"addresses": [], "conditions": [condition("Stale"), condition(lastTransitionTime=OLD)], "listeners": [listener]}
    wanted = {"addresses": [], "conditions": [condition()], "listeners": [{**listener, "conditions": [condition()]}]}
    written = merge(wanted, there(status, GatewayStatus))
    assert written == {**wanted, "conditions": [condition(lastTransitionTime=OLD)], "listeners": [listener]}
    assert merge(wanted, there(written, GatewayStatus)) is None
    assert merge(None, there(written, GatewayStatus)) is None, "a Gateway that is another's is its controller's to write"


def test_plain_data_is_compared_too() -> None:
    present = Present("gwanmun.dev/v1alpha1", "u", "7", 1, {})
    written = merge({"conditions": [condition()]}, present)
    assert written == {"conditions": [condition(lastTransitionTime=NOW)]}
    assert merge({"conditions": [condition()]}, Present("gwanmun.dev/v1alpha1", "u", "8", 1, written)) is None
