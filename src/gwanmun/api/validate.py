"""An object as an API server would see it: known kind, sound metadata, defaults, structure and rules.

`validate` is pure; a caller that sees the same text again should remember the answer.
"""

import base64
import binascii
import difflib
import re
from dataclasses import dataclass
from typing import Any

from gwanmun.api.kinds import (
    ALIAS_GROUPS,
    CORE_KINDS_NOT_USED,
    KINDS,
    Kind,
    canonical_group,
    split_api_version,
)
from gwanmun.api.metadata import check_metadata
from gwanmun.api.problem import FieldProblem, any_of, show
from gwanmun.api.schema import load_schema
from gwanmun.api.structure import MAX_PROBLEMS, check_structure

_KNOWN_GROUPS = frozenset({group for group, _ in KINDS} | set(ALIAS_GROUPS))
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}", re.ASCII)
_NOT_BASE64 = "not base64; plain text goes into stringData"
_BAD_KEY = 'a key is at most 253 letters, digits, "-", "_" and "."'
_HARMLESS = (_NOT_BASE64, _BAD_KEY)


@dataclass(frozen=True, slots=True)
class Validated:
    """`value` has its defaults and nothing unknown; it is None where the object is refused, or is not for gwanmun."""

    kind: Kind | None
    value: dict[str, Any] | None
    problems: tuple[FieldProblem, ...] = ()


def validate(obj: dict[str, Any], old: dict[str, Any] | None = None) -> Validated:
    """The object made ready, or why not. With `old`, the object before an update, transition rules are checked too."""
    kind, version, problem = find_kind(obj.get("apiVersion"), obj.get("kind"))
    if kind is None:
        return Validated(None, None, (problem,) if problem is not None else ())
    metadata, problems = check_metadata(obj.get("metadata"), kind)
    schema = load_schema(kind, version)
    if schema.deprecation is not None:
        problems.append(FieldProblem(("apiVersion",), schema.deprecation, "warning"))
    ignored = ("apiVersion", "kind", "metadata") if schema.is_builtin else ("apiVersion", "kind", "metadata", "status")
    body, found = check_structure(schema, {name: item for name, item in obj.items() if name not in ignored}, old)
    if kind.kind in ("Secret", "ConfigMap") and not found:
        found = _check_data(body)
    if kind.kind == "Secret":
        found = [_without_value(item) for item in found]
    problems = (problems + found)[:MAX_PROBLEMS]
    if any(item.severity == "error" for item in problems):
        return Validated(kind, None, tuple(problems))
    value = {"apiVersion": obj["apiVersion"], "kind": kind.kind, "metadata": metadata, **body}
    return Validated(kind, value, tuple(problems))


def find_kind(api_version: Any, kind: Any) -> tuple[Kind | None, str, FieldProblem | None]:
    """The kind and the version of an object, or None and why it is not read: an error, or a warning for other groups."""
    if not isinstance(api_version, str) or not api_version:
        return None, "", FieldProblem(("apiVersion",), "apiVersion is missing")
    if not isinstance(kind, str) or not kind:
        return None, "", FieldProblem(("kind",), "kind is missing")
    group, version = split_api_version(api_version)
    found = KINDS.get((canonical_group(group), kind))
    if found is None:
        return None, "", _unknown_kind(group, kind)
    if version not in found.versions:
        prefix = f"{group}/" if group else ""
        served = any_of([f"{prefix}{name}" for name in found.versions])
        return None, "", FieldProblem(("apiVersion",), f"{kind} has no version {show(api_version)}; {served} is served")
    return found, version, None


def _unknown_kind(group: str, kind: str) -> FieldProblem:
    if group not in _KNOWN_GROUPS:
        owners = sorted({owner for owner, name in KINDS if name == kind and owner})
        if owners and difflib.get_close_matches(group, owners, n=1, cutoff=0.85):
            return FieldProblem(("apiVersion",), f"unknown group {show(group)}; {kind} is of {any_of(owners)}")
        return FieldProblem(("apiVersion",), f"{kind} of group {show(group)} is not read by gwanmun; ignored", "warning")
    if not group and kind in CORE_KINDS_NOT_USED:
        return FieldProblem(("kind",), f"{kind} is not read by gwanmun; ignored", "warning")
    names = sorted(name for owner, name in KINDS if owner == canonical_group(group))
    near = difflib.get_close_matches(kind, names, n=1) or [owner for owner in names if owner.lower() == kind.lower()]
    if near:
        return FieldProblem(("kind",), f"unknown kind {show(kind)}; did you mean {near[0]}?")
    elsewhere = sorted(owner for owner, name in KINDS if name == kind)
    if elsewhere:
        versions = KINDS[elsewhere[0], kind].versions
        return FieldProblem(("apiVersion",), f"{kind} has apiVersion {elsewhere[0]}/{versions[0]}".replace(" /", " "))
    return FieldProblem(("kind",), f"unknown kind {show(kind)}; {any_of(names)} is accepted in this group")


def _check_data(body: dict[str, Any]) -> list[FieldProblem]:
    problems = []
    for field in ("data", "stringData", "binaryData"):
        for key, text in body.get(field, {}).items():
            if not _DATA_KEY.fullmatch(key):
                problems.append(FieldProblem((field, key), _BAD_KEY))
            elif field == "binaryData" or (field == "data" and "type" in body):
                try:
                    base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
                except (binascii.Error, ValueError):
                    problems.append(FieldProblem((field, key), _NOT_BASE64))
    return problems


def _without_value(problem: FieldProblem) -> FieldProblem:
    """Messages about a Secret name the field and never what stands there."""
    if not problem.path or problem.path[0] not in ("data", "stringData"):
        return problem
    if problem.message in _HARMLESS:
        return problem
    needed = "a mapping of text is needed" if len(problem.path) == 1 else "text is needed; put it in quotes"
    return FieldProblem(problem.path, f"{needed} (what is there is not shown)", problem.severity)
