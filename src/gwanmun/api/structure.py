"""Checks of one value against the tree of its schema: unknown fields, defaults, list types, JSON Schema, CEL.

The order is an API server's: unknown fields are reported and dropped, defaults filled in, then the structure is checked,
and rules run only on a sound structure.
"""

import difflib
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec

from gwanmun.api.messages import explain
from gwanmun.api.problem import FieldPath, FieldProblem, any_of, show
from gwanmun.api.schema import Node, Schema

Trail = tuple[Any, ...]
"""A path as nested pairs (trail, step): cheap to extend, and only spelled out for a problem."""

MAX_PROBLEMS = 50
"""Per object. Who made the first fifty mistakes will look again."""
_REMEMBERED_VALUES = 1_024
"""That keep the rules of one place of a schema: 100 KB."""
_EXACT = 1 << 53
_LONGEST_FIELD = 64


def check_structure(
    schema: Schema, value: dict[str, Any], old: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[FieldProblem]]:
    """The value with defaults and without unknown fields, and everything that is wrong with it."""
    problems: list[FieldProblem] = []
    pruned = _prune(schema.root, value, (), schema.is_builtin, problems)
    if not schema.structural.is_valid(pruned):
        errors = islice(schema.structural.iter_errors(pruned), MAX_PROBLEMS)
        problems += [problem for error in errors for problem in explain(error)]
    if not problems:
        _check_rules(schema.root, pruned, old, (), problems)
    return pruned, problems[:MAX_PROBLEMS]


def _prune(node: Node, value: Any, trail: Trail, drop_nulls: bool, problems: list[FieldProblem]) -> Any:
    if isinstance(value, dict):
        if node.properties is None:
            if node.additional is None:
                return value
            child = node.additional
            if child.is_leaf and not drop_nulls:
                return value
            return {
                name: _prune(child, item, (trail, name), drop_nulls, problems)
                for name, item in value.items()
                if not (drop_nulls and item is None)
            }
        result = {}
        for name, item in value.items():
            known = node.properties.get(name)
            if known is None:
                if node.preserves_unknown:
                    result[name] = item
                elif len(problems) < MAX_PROBLEMS:
                    problems.append(FieldProblem(_path((trail, name)), _unknown(name, node.properties)))
            elif item is None and (drop_nulls or (name in node.defaulted and not known.nullable)):
                continue
            elif type(item) in (dict, list) or type(item) is float:
                result[name] = _prune(known, item, (trail, name), drop_nulls, problems)
            else:
                result[name] = item
        for name, default in node.defaults:
            if name not in result:
                result[name] = default
        return result
    if isinstance(value, list):
        if node.items is None:
            return value
        child = node.items
        result_list = [_prune(child, item, (trail, index), drop_nulls, problems) for index, item in enumerate(value)]
        if node.is_set or node.list_keys:
            _check_unique(node, result_list, trail, problems)
        return result_list
    if node.type == "integer" and isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)  # 1.0 is an integer in JSON Schema's later drafts and to Kubernetes
    return value


def _unknown(name: str, known: dict[str, Node]) -> str:
    near = difflib.get_close_matches(name, known, n=2) if len(name) <= _LONGEST_FIELD else []
    if not near:
        near = [field for field in known if field.lower() == name.lower()]
    if near:
        return f"unknown field; did you mean {any_of(near)}?"
    if not known:
        return "unknown field; none is accepted here"
    if len(known) <= 12:
        return f"unknown field; accepted are {', '.join(sorted(known))}"
    return "unknown field"


def _check_unique(node: Node, items: list[Any], trail: Trail, problems: list[FieldProblem]) -> None:
    seen: set[bytes] = set()
    for index, item in enumerate(items):
        identity = [item.get(key) for key in node.list_keys] if node.list_keys and isinstance(item, dict) else item
        encoded = msgspec.json.encode(identity)
        if encoded in seen:
            values = identity if isinstance(identity, list) and node.list_keys else [identity]
            keys = " and ".join(node.list_keys)
            what = f"{keys} {', '.join(show(value) for value in values)}" if keys else show(identity)
            problems.append(FieldProblem(_path((trail, index)), f"{what} is there twice; each must be unique in this list"))
        seen.add(encoded)


def _check_rules(node: Node, value: Any, old: Any, trail: Trail, problems: list[FieldProblem]) -> None:
    if node.rules is None or old is not None:
        _check_rules_anew(node, value, old, trail, problems)
        return
    # Routes of one team share their parentRefs, and many matches and backends: to look them up costs a tenth of a rule.
    digest, sound = blake2b(msgspec.json.encode(value), digest_size=16).digest(), node.rules.sound
    if digest in sound:
        return
    before = len(problems)
    _check_rules_anew(node, value, old, trail, problems)
    if len(problems) == before < MAX_PROBLEMS:
        if len(sound) >= _REMEMBERED_VALUES:
            sound.clear()
        sound.add(digest)


def _check_rules_anew(node: Node, value: Any, old: Any, trail: Trail, problems: list[FieldProblem]) -> None:
    if node.rules is not None:
        failing = node.rules.failing(value)
        if old is not None:
            failing = failing + node.rules.failing_update(value, old)
        for rule in failing[: MAX_PROBLEMS - len(problems)]:
            said = rule.message if isinstance(value, dict | list) else f"{show(value)} is refused: {rule.message}"
            problems.append(FieldProblem((*_path(trail), *rule.field), said))
    if isinstance(value, dict):
        if node.properties is not None:
            for name, child in node.properties.items():
                if child.has_rules and name in value:
                    _check_rules(child, value[name], _old_field(old, name), (trail, name), problems)
        elif node.additional is not None and node.additional.has_rules:
            for name, item in value.items():
                _check_rules(node.additional, item, _old_field(old, name), (trail, name), problems)
    elif isinstance(value, list) and node.items is not None and node.items.has_rules:
        for index, item in enumerate(value):
            _check_rules(node.items, item, _old_item(node, old, item), (trail, index), problems)


def _old_field(old: Any, name: str) -> Any:
    return old.get(name) if isinstance(old, dict) else None


def _old_item(node: Node, old: Any, item: Any) -> Any:
    """The item before the update. Only lists of type map have such a thing; Kubernetes skips the rules of others."""
    if not (isinstance(old, list) and node.list_keys and isinstance(item, dict)):
        return None
    identity = [item.get(key) for key in node.list_keys]
    for candidate in old:
        if isinstance(candidate, dict) and [candidate.get(key) for key in node.list_keys] == identity:
            return candidate
    return None


def _path(trail: Trail) -> FieldPath:
    steps = []
    while trail:
        trail, step = trail
        steps.append(step)
    return tuple(reversed(steps))
