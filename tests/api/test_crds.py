"""The CRDs kept as data and the Python types say the same, and every rule in them can be evaluated."""

import types
import typing
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gwanmun.api import Gateway, HTTPRoute
from gwanmun.api.cel import RuleSet, compile_expression
from gwanmun.api.decode import decode_json, decode_json_list
from gwanmun.api.duration import parse_duration
from gwanmun.api.kinds import ALIAS_GROUPS, KINDS, Kind
from gwanmun.api.load import load_text
from gwanmun.api.meta import LabelSelector, LabelSelectorRequirement
from gwanmun.api.quantity import parse_quantity
from gwanmun.api.schema import Node, load_schema
from gwanmun.api.validate import validate

CRDS = {
    (crd["spec"]["group"], crd["spec"]["names"]["kind"]): crd["spec"]
    for path in (files("gwanmun.api") / "crds").iterdir()
    if path.name.endswith(".yaml")
    for crd in [yaml.load(path.read_bytes(), yaml.CSafeLoader)]
}
EVERY_VERSION = [(kind, version) for kind in KINDS.values() for version in kind.versions]


def test_every_crd_is_known_with_its_versions_and_scope() -> None:
    declared = {
        key: ({version["name"] for version in spec["versions"] if version["served"]}, spec["scope"] == "Namespaced")
        for key, spec in CRDS.items()
    }
    known = {key: (set(kind.versions), kind.namespaced) for key, kind in KINDS.items() if key in CRDS}
    assert known == declared


def fields(type_: Any) -> Iterator[Any]:
    """The struct types that an annotation such as `tuple[Rule, ...] | None` holds."""
    origin = typing.get_origin(type_)
    if origin in (tuple, types.UnionType, typing.Union, dict):
        for argument in typing.get_args(type_):
            yield from fields(argument)
    elif isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        yield type_


def differences(schema: dict[str, Any], struct: Any, path: str) -> Iterator[str]:
    """Fields of a schema that the struct lacks, and defaults that differ."""
    described = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    for name, child in schema.get("properties", {}).items():
        field = described.get(name)
        if field is None:
            yield f"{path}.{name} is not in {struct.__name__}"
            continue
        here = f"{path}.{name}"
        optional = "default" in child and field.default is not msgspec.NODEFAULT
        if optional and msgspec.convert(child["default"], field.type) != field.default:
            yield f"{here} defaults to {child['default']}, not to {field.default}"
        for inner in fields(field.type):
            yield from differences(child.get("items", child), inner, here)


@pytest.mark.parametrize("key", sorted(CRDS), ids=lambda key: key[1])
def test_types_have_every_field_of_the_crd_with_its_default(key: tuple[str, str]) -> None:
    spec = next(version for version in CRDS[key]["versions"] if version["storage"])
    properties = spec["schema"]["openAPIV3Schema"]["properties"]
    struct = next(field.type for field in msgspec.structs.fields(KINDS[key].type) if field.name == "spec")
    assert list(differences(properties["spec"], struct, "spec")) == []


def rules(node: Node) -> Iterator[RuleSet]:
    if node.rules is not None:
        yield node.rules
    for child in (*(node.properties or {}).values(), node.additional, node.items):
        if child is not None:
            yield from rules(child)


@pytest.mark.parametrize(("kind", "version"), EVERY_VERSION, ids=lambda value: getattr(value, "kind", value))
def test_every_rule_compiles(kind: Kind, version: str) -> None:
    for rule_set in rules(load_schema(kind, version).root):
        for rule in rule_set.rules:
            assert compile_expression(rule.expression) is not None


def test_rules_that_compare_with_the_old_object_need_one() -> None:
    def route_class(controller: str) -> dict[str, Any]:
        return {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "c"},
            "spec": {"controllerName": controller},
        }

    assert validate(route_class("example.com/a")).problems == ()
    assert validate(route_class("example.com/a"), route_class("example.com/a")).problems == ()
    (problem,) = validate(route_class("example.com/a"), route_class("example.com/b")).problems
    assert str(problem) == 'spec.controllerName: "example.com/a" is refused: Value is immutable'


def test_alias_groups_have_the_kinds_of_another() -> None:
    for alias, group in ALIAS_GROUPS.items():
        for owner, kind in KINDS:
            if owner == group:
                obj = {"apiVersion": f"{alias}/v1alpha1", "kind": kind, "metadata": {"name": "x"}}
                assert validate(obj).kind == KINDS[owner, kind]


GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "g"},
    "spec": {"gatewayClassName": "c", "listeners": [{"name": "l", "port": 80, "protocol": "HTTP"}]},
}
ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "r", "labels": {"a": "b"}},
    "spec": {
        "parentRefs": [{"name": "g"}],
        "hostnames": ["a.example.com"],
        "rules": [
            {
                "matches": [{"headers": [{"name": "x", "value": "y"}]}],
                "filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "b"}}],
                "backendRefs": [{"name": "s", "port": 80}],
            }
        ],
    },
}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "s"},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "a"}]}}],
    "ports": [{"port": 80}],
}
ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.lists(st.integers() | st.text(max_size=3) | st.none(), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=3), max_size=3)
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, child in entries:
        yield value, step
        yield from places(child)


@given(st.sampled_from([GATEWAY, ROUTE, SERVICE, SLICE]), st.data())
def test_an_object_with_anything_in_any_place_gives_a_result(obj: dict[str, Any], data: st.DataObject) -> None:
    copy = msgspec.json.decode(msgspec.json.encode(obj))
    container, step = data.draw(st.sampled_from(list(places(copy))))
    container[step] = data.draw(ANYTHING)
    result = load_text(msgspec.json.encode(copy), "a.json")
    assert len(result.objects) + len(result.problems) >= 1


@given(st.sampled_from([GATEWAY, ROUTE, SERVICE, SLICE]))
def test_a_validated_object_is_valid(obj: dict[str, Any]) -> None:
    once = validate(obj)
    assert once.value is not None
    assert validate(once.value) == once


def test_json_of_an_api_server() -> None:
    kind = KINDS["gateway.networking.k8s.io", "HTTPRoute"]
    route = decode_json(msgspec.json.encode({**ROUTE, "unknown": 1}), kind)
    assert isinstance(route, HTTPRoute)
    page = decode_json_list(msgspec.json.encode({"metadata": {"continue": "x"}, "items": [ROUTE, ROUTE]}), kind)
    assert (page.metadata.continue_, page.items) == ("x", (route, route))
    assert decode_json_list(b'{"metadata":{},"items":null}', kind).items is None


def test_status_is_read_back_from_an_api_server() -> None:
    condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "observedGeneration": 3, "new": 1}
    gateway = decode_json(
        msgspec.json.encode({**GATEWAY, "status": {"conditions": [condition]}}), KINDS["gateway.networking.k8s.io", "Gateway"]
    )
    assert isinstance(gateway, Gateway)
    assert gateway.status.conditions[0].observed_generation == 3


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("10s", timedelta(seconds=10)),
        ("1h30m", timedelta(minutes=90)),
        ("1m500ms", timedelta(seconds=60.5)),
        ("0s", timedelta()),
        ("10", None),
        ("-1s", None),
        ("1.5s", None),
        ("1d", None),
        ("", None),
        ("100000s", None),
        ("1s1s1s1s1s", None),
    ],
)
def test_durations(text: str, meaning: timedelta | None) -> None:
    assert parse_duration(text) == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("32Mi", Decimal(32 << 20)),
        ("500m", Decimal("0.5")),
        ("1.5", Decimal("1.5")),
        (2, Decimal(2)),
        ("2e3", Decimal(2000)),
        ("1G", Decimal(10**9)),
        ("2GiB", None),
        ("", None),
        ("Mi", None),
    ],
)
def test_quantities(text: str | int, meaning: Decimal | None) -> None:
    assert parse_quantity(text) == meaning


def test_label_selectors() -> None:
    def selected(operator: str, *values: str) -> bool:
        requirement = LabelSelectorRequirement("tier", operator, values)
        return LabelSelector({"team": "ai"}, (requirement,)).matches({"team": "ai", "tier": "gold"})

    assert LabelSelector().matches({})
    assert not LabelSelector({"team": "ai"}).matches({"team": "web"})
    assert [selected("In", "gold"), selected("NotIn", "gold"), selected("Exists"), selected("DoesNotExist")] == [
        True,
        False,
        True,
        False,
    ]
    assert not selected("Near", "gold")
