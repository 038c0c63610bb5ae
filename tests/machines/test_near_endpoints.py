"""Which endpoints are in which priority, and how much they weigh."""

from dataclasses import replace
from typing import Literal

from gwanmun.ir import Backend, Endpoint, Endpoints, Prefer
from gwanmun.names import ClusterKey, ObjectKey
from gwanmun.xds.endpoint import Place, load_assignment

HERE = Place("z1", "n1")


def priorities(
    *endpoints: Endpoint, prefer: Prefer | None = "zone", protocol: Literal["http1", "tcp"] = "http1", place: Place = HERE
) -> list[dict[str, int]]:
    """Weight by address, priority by priority."""
    key = ClusterKey(ObjectKey("", "Service", "ai", "x"), 80, protocol)
    assignment = load_assignment(Backend(key, protocol, prefer=prefer), Endpoints(key, endpoints), place)
    found: dict[int, dict[str, int]] = {}
    for locality in assignment["endpoints"]:
        for one in locality["lb_endpoints"]:
            address = one["endpoint"]["address"]["socket_address"]["address"]
            found.setdefault(locality["priority"], {})[address] = one.get("load_balancing_weight", {"value": 1})["value"]
    assert list(found) == list(range(len(found)))
    return list(found.values())


def at(zone: str, *names: str, node: str = "", **more: int) -> list[Endpoint]:
    return [Endpoint(name, 80, zone, node, **more) for name in names]  # type: ignore[arg-type]  # only `weight` is given


def test_every_other_further_endpoint_helps_a_little() -> None:
    found = priorities(*at("z1", "a", "b"), *at("z2", "c", "d"), *at("z3", "e"))
    assert found == [{"a": 1000, "b": 1000, "c": 1, "e": 1}, {"d": 1}]


def test_no_more_help_than_there_are_near_ones() -> None:
    assert priorities(*at("z1", "a"), *at("z2", "b", "c", "d", "e")) == [{"a": 1000, "b": 1}, {"c": 1, "d": 1, "e": 1}]


def test_the_only_further_endpoint_helps() -> None:
    assert priorities(*at("z1", "a"), *at("z2", "b")) == [{"a": 1000, "b": 1}]


def test_weights_of_the_user_are_kept() -> None:
    found = priorities(*at("z1", "a", weight=3), *at("z2", "b", "c", weight=2))
    assert found == [{"a": 3000, "b": 2}, {"c": 2}]


def test_the_largest_weights_are_not_too_much_for_envoy() -> None:
    """It refuses a zone whose weights come to more than 32 bits hold."""
    near = [f"n{number}" for number in range(200)]
    [first, _] = priorities(*at("z1", *near, weight=1_000_000), *at("z2", "b", "c", weight=1_000_000))
    assert sum(first[name] for name in near) < 2**32
    assert 900 < first["n0"] / first["b"] < 1100


def test_nothing_changes_where_all_are_near_or_none_is() -> None:
    assert priorities(*at("z1", "a", "b")) == [{"a": 1, "b": 1}]
    assert priorities(*at("z2", "a", "b")) == [{"a": 1, "b": 1}]
    assert priorities(*at("z1", "a"), *at("z2", "b"), place=Place()) == [{"a": 1, "b": 1}]
    assert priorities(*at("z1", "a"), *at("z2", "b"), prefer=None) == [{"a": 1, "b": 1}]


def test_the_node_first_then_the_zone_then_the_rest() -> None:
    found = priorities(*at("z1", "a", node="n1"), *at("z1", "b", "c", node="n2"), *at("z2", "d", node="n3"), prefer="node")
    assert found == [{"a": 1000, "b": 1}, {"c": 1}, {"d": 1}]


def test_hints_count_more_than_zones_if_all_have_them() -> None:
    a, b, c = (replace(one, hints=("z1",)) for one in (*at("z1", "a"), *at("z2", "b"), *at("z3", "c")))
    c = replace(c, hints=("z3",))
    for prefer in ("zone", "node", "hints"):
        assert priorities(a, b, c, prefer=prefer) == [{"a": 1000, "b": 1000, "c": 1}]
    assert priorities(a, b, replace(c, hints=())) == [{"a": 1000, "b": 1}, {"c": 1}]


def test_hints_for_nodes_count_more_than_those_for_zones() -> None:
    a, b, c = (replace(one, hints=("z1",), node_hints=("n2",)) for one in at("z1", "a", "b", "c"))
    a, d = replace(a, node_hints=("n1",)), replace(at("z2", "d")[0], hints=("z2",), node_hints=("n3",))
    assert priorities(a, b, c, d, prefer="node") == [{"a": 1000, "b": 1}, {"c": 1}, {"d": 1}]
    elsewhere = priorities(a, b, c, d, prefer="node", place=Place("z1", "n9"))
    assert elsewhere == [{"a": 1000, "b": 1000, "c": 1000, "d": 1}], "nobody is on this node"
    assert priorities(a, b, c, replace(d, node_hints=()), prefer="node") == elsewhere, "not all have them"
    assert priorities(a, b, c, d, prefer="node", place=Place("z1")) == elsewhere, "the node is not known"
    assert priorities(a, b, c, d, prefer=None) == [{"a": 1}, {"b": 1, "c": 1}, {"d": 1}]


def test_who_goes_by_hints_prefers_nobody_without_them() -> None:
    assert priorities(*at("z1", "a"), *at("z2", "b"), prefer="hints") == [{"a": 1, "b": 1}]


def test_hints_that_nobody_asked_for_are_followed_without_help() -> None:
    a, b = replace(at("z1", "a")[0], hints=("z1",)), replace(at("z2", "b")[0], hints=("z2",))
    assert priorities(a, b, prefer=None) == [{"a": 1}, {"b": 1}]


def test_connections_say_nothing_of_load() -> None:
    assert priorities(*at("z1", "a"), *at("z2", "b", "c"), protocol="tcp") == [{"a": 1}, {"b": 1, "c": 1}]
