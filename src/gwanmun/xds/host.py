"""One host as a virtual host: its rules in order, or by the model's name where there are many.

Deliberately absent: single rules (``route``), the map of models (``tree``) and tables of hosts (``table``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Final, NamedTuple

from gwanmun.ir import Host, Rule
from gwanmun.protos import pb, serialize
from gwanmun.xds import tree
from gwanmun.xds.route import RouteContext, asks_picker, route_entries, rule_problems
from gwanmun.xds.types import Problem
from gwanmun.xds.wire import part

_ROUTES_FIELD: Final = 3
_MATCHER_FIELD: Final = 21
"""Of VirtualHost."""


class Entry(NamedTuple):
    """A rule, serialized as elements of a list of routes."""

    routes: bytes
    problems: tuple[Problem, ...]


class Asking(NamedTuple):
    """The rules that may match one value of the pivot, and their place in the map."""

    entries: tuple[Entry, ...]
    chunk: bytes


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """A host and its serialized form. `entries` are those of each rule in order. `pivot` is the header by which they are
    looked up, if they are, and `asking` what there is for its values. `cors` tells whether any rule has a policy, `picked`
    whether any asks a picker."""

    host: Host
    entries: tuple[Entry, ...]
    body: bytes
    problems: tuple[Problem, ...]
    pivot: str | None
    asking: Mapping[str, Asking]
    cors: bool
    picked: bool


def virtual_host(host: Host, context: RouteContext, before: VirtualHost | None) -> VirtualHost:
    """`before` is a cache only, of the same domain and context."""
    pivot = tree.pivot(host.rules, context.spared_header)
    header = pivot.header if pivot is not None else None
    if before is not None and before.pivot != header:
        before = None
    field = _ROUTES_FIELD if pivot is None else tree.ROUTES_FIELD
    known = {id(rule): entry for rule, entry in zip(before.host.rules, before.entries, strict=True)} if before else {}
    spared = _spared(host, pivot, context)
    entries = tuple(
        [
            known.get(id(rule)) or _entry(rule, host.domain, context, field, spared=one)
            for rule, one in zip(host.rules, spared, strict=True)
        ]
    )
    head = serialize(pb("envoy.config.route.v3.VirtualHost")(name=host.domain, domains=[host.domain]))
    asking: Mapping[str, Asking] = {}
    if pivot is None:
        body = b"".join([head, *[entry.routes for entry in entries]])
    else:
        asking = _asking(entries, pivot.values, before.asking if before is not None else {})
        rest = [entry.routes for value, entry in zip(pivot.values, entries, strict=True) if value is None]
        lists = {value: found.chunk for value, found in asking.items()}
        several = None if pivot.header == context.one_valued else b"".join([entry.routes for entry in entries])
        body = head + part(_MATCHER_FIELD, tree.matcher(pivot.header, lists, b"".join(rest), several=several))
    problems = tuple([problem for entry in entries for problem in entry.problems])
    cors = any(rule.cors is not None for rule in host.rules)
    picked = any(map(asks_picker, host.rules))
    return VirtualHost(host, entries, body, problems, header, asking, cors, picked)


def _spared(host: Host, pivot: tree.Pivot | None, context: RouteContext) -> Iterable[bool]:
    """Of each rule whether only requests come to it that have one model in their header: the module can do nothing to them.
    In a mere list a rule would also take one that has several, of which the module leaves one."""
    if pivot is None or pivot.header != context.spared_header:
        return [False] * len(host.rules)
    return [value is not None for value in pivot.values]


def _entry(rule: Rule, domain: str, context: RouteContext, field: int, *, spared: bool) -> Entry:
    routes = b"".join([part(field, route) for route in route_entries(rule, domain, context, spared=spared)])
    return Entry(routes, tuple(Problem(rule.key, message) for message in rule_problems(rule)))


def _asking(entries: tuple[Entry, ...], values: tuple[str | None, ...], before: Mapping[str, Asking]) -> Mapping[str, Asking]:
    own: dict[str, list[int]] = {}
    for position, value in enumerate(values):
        if value is not None:
            own.setdefault(value, []).append(position)
    common = [position for position, value in enumerate(values) if value is None]
    found = {}
    for value, positions in own.items():
        mine = tuple([entries[position] for position in (sorted([*positions, *common]) if common else positions)])
        last = before.get(value)
        if last is None or len(last.entries) != len(mine) or not all(map(is_, last.entries, mine)):
            last = Asking(mine, tree.map_entry(value, b"".join([entry.routes for entry in mine])))
        found[value] = last
    return found
