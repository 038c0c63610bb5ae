"""Precedence of rules, as the Gateway API orders them."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwanmun import ir
from gwanmun.names import MatchKey, ObjectKey, RuleKey
from gwanmun.resolve.match import rule_order

OLD, NEW, UNKNOWN = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", ""


def rule(
    path: ir.PathMatch = ir.PrefixPath("/"),  # noqa: B008  # frozen
    *,
    method: str | None = None,
    headers: int = 0,
    query: int = 0,
    route: tuple[str, str] = ("ai", "r"),
    created: str = OLD,
    rule: int = 0,
    match: int = 0,
    grpc: bool = False,
) -> tuple[object, ...]:
    kind = "GRPCRoute" if grpc else "HTTPRoute"
    key = ObjectKey("gateway.networking.k8s.io", kind, *route)
    conditions = ir.HttpMatch(
        path,
        method,
        tuple(ir.HeaderMatch(f"h{i}", ir.ValueMatch("v")) for i in range(headers)),
        tuple(ir.QueryMatch(f"q{i}", ir.ValueMatch("v")) for i in range(query)),
        grpc,
    )
    made = ir.Rule(MatchKey(RuleKey(key, rule), match), conditions, ir.Respond(200))
    return rule_order(made, created, key)


# Each differs from the next in the criterion named, and is worse in all that follow.
LADDER = [
    ("exact path", rule(ir.ExactPath("/a"), created=UNKNOWN, rule=9)),
    ("regular expression", rule(ir.RegexPath("/a.*"), created=UNKNOWN, rule=9)),
    ("longest prefix", rule(ir.PrefixPath("/abc"), created=UNKNOWN, rule=9)),
    ("shorter prefix, method", rule(ir.PrefixPath("/a"), method="GET", created=UNKNOWN, rule=9)),
    ("two headers", rule(ir.PrefixPath("/a"), headers=2, created=UNKNOWN, rule=9)),
    ("one header", rule(ir.PrefixPath("/a"), headers=1, query=3, created=UNKNOWN, rule=9)),
    ("two parameters", rule(ir.PrefixPath("/a"), query=2, created=UNKNOWN, rule=9)),
    ("one parameter, older", rule(ir.PrefixPath("/a"), query=1, created=OLD, route=("z", "z"), rule=9)),
    ("newer", rule(ir.PrefixPath("/a"), query=1, created=NEW, route=("z", "z"), rule=9)),
    ("age unknown, first namespace", rule(ir.PrefixPath("/a"), query=1, created=UNKNOWN, route=("ai", "z"), rule=9)),
    ("second namespace, first name", rule(ir.PrefixPath("/a"), query=1, created=UNKNOWN, route=("b", "a"), rule=9)),
    ("second name, first rule", rule(ir.PrefixPath("/a"), query=1, created=UNKNOWN, route=("b", "b"), rule=0, match=5)),
    ("second rule, first match", rule(ir.PrefixPath("/a"), query=1, created=UNKNOWN, route=("b", "b"), rule=1, match=0)),
    ("second match", rule(ir.PrefixPath("/a"), query=1, created=UNKNOWN, route=("b", "b"), rule=1, match=1)),
    ("everything", rule(ir.PrefixPath("/"), method="GET", headers=9)),
]


@pytest.mark.parametrize(("better", "worse"), list(itertools.pairwise(LADDER)), ids=lambda entry: entry[0])
def test_each_criterion_decides_where_those_before_it_tie(
    better: tuple[str, tuple[object, ...]], worse: tuple[str, tuple[object, ...]]
) -> None:
    assert better[1] < worse[1]


@settings(max_examples=30)
@given(st.permutations(range(len(LADDER))))
def test_arrival_order_is_irrelevant(order: list[int]) -> None:
    assert sorted(LADDER[i][1] for i in order) == [key for _, key in LADDER]


def test_grpc_prefers_service_and_method_then_service_then_method_then_headers() -> None:
    ordered = [
        rule(ir.ExactPath("/inference.GRPC/Predict"), grpc=True, created=NEW),
        rule(ir.PrefixPath("/inference.GRPC.Long"), grpc=True, created=NEW),
        rule(ir.PrefixPath("/inference.GRPC"), grpc=True, created=NEW),
        rule(ir.RegexPath("/[^/]+/Predict"), grpc=True, created=NEW),
        rule(ir.PrefixPath("/"), grpc=True, headers=1, created=NEW),
        rule(ir.PrefixPath("/"), grpc=True, created=OLD),
    ]
    assert ordered == sorted(ordered)
