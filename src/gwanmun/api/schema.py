"""An OpenAPI schema of a CRD, made ready: a tree that prunes, defaults and checks lists, a JSON Schema, and CEL rules.

The schemas are data files: `crds/` as published, `schemas/` for Kubernetes' own kinds. Each is read on first use.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import jsonschema_rs

from gwanmun.api.cel import Rule, RuleSet
from gwanmun.api.kinds import Kind
from gwanmun.api.yaml import Document, decode_documents

_LIMITS = {"int32": (-(1 << 31), (1 << 31) - 1), "int64": (-(1 << 63), (1 << 63) - 1)}
_FORMATS = frozenset({"ipv4", "ipv6", "date-time"})
_COPIED = (
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
    "uniqueItems",
)


@dataclass(frozen=True, slots=True)
class Node:
    """One place of a schema. `properties` is None where fields are not listed (a map, a list, a single value)."""

    type: str | None = None
    nullable: bool = False
    preserves_unknown: bool = False
    properties: dict[str, "Node"] | None = None
    additional: "Node | None" = None
    items: "Node | None" = None
    defaults: tuple[tuple[str, Any], ...] = ()
    list_keys: tuple[str, ...] = ()
    is_set: bool = False
    rules: RuleSet | None = None
    has_rules: bool = False
    """Whether there are rules here or anywhere below."""
    defaulted: frozenset[str] = frozenset()

    @property
    def is_leaf(self) -> bool:
        return self.properties is None and self.additional is None and self.items is None


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of one version of one kind."""

    root: Node
    structural: Any
    deprecation: str | None
    is_builtin: bool
    """A kind of Kubernetes itself: null is the same as absent, and status belongs to the object."""


@lru_cache(maxsize=64)
def load_schema(kind: Kind, version: str) -> Schema:
    """The schema of a served version. Raises KeyError for one that is not served (`Kind.versions` has them all)."""
    builtin, definition = _definition(kind)
    found = next((entry for entry in definition["versions"] if entry["name"] == version), None)
    if found is None:
        raise KeyError(version)
    schema = dict(found["schema"]["openAPIV3Schema"])
    # Metadata has rules of its own; the status of a new object is dropped by an API server before it looks.
    dropped = {"apiVersion", "kind", "metadata"} | (set() if builtin else {"status"})
    schema["properties"] = {name: node for name, node in schema.get("properties", {}).items() if name not in dropped}
    deprecation = None
    if found.get("deprecated"):
        deprecation = found.get("deprecationWarning") or f"version {version} is deprecated"
    validator = jsonschema_rs.Draft4Validator(_structural(schema), validate_formats=True)
    return Schema(compile_node(schema), validator, deprecation, builtin)


def _definition(kind: Kind) -> tuple[bool, dict[str, Any]]:
    if "." in kind.group and kind.group != "discovery.k8s.io":
        document = _documents(f"crds/{kind.group}_{kind.plural}.yaml")[0]
        return False, document["spec"]
    for document in _documents("schemas/core.yaml"):
        spec: dict[str, Any] = document["spec"]
        if (spec["group"], spec["names"]["kind"]) == (kind.group, kind.kind):
            return True, spec
    raise KeyError(kind.kind)


@lru_cache(maxsize=2)
def _documents(name: str) -> list[dict[str, Any]]:
    data = (files("gwanmun.api") / name).read_bytes()
    return [document.value for document in decode_documents(data, name) if isinstance(document, Document)]


def compile_node(schema: dict[str, Any]) -> Node:
    """The tree of one schema. Defaults inside a default are filled in once, here."""
    properties = {name: compile_node(child) for name, child in schema.get("properties", {}).items()}
    extra = schema.get("additionalProperties")
    additional = compile_node(extra) if isinstance(extra, dict) else None
    items = compile_node(schema["items"]) if "items" in schema else None
    defaults = tuple(
        (name, with_defaults(properties[name], child["default"]))
        for name, child in schema.get("properties", {}).items()
        if "default" in child
    )
    rules = tuple(_rule(entry) for entry in schema.get("x-kubernetes-validations", ()))
    below = (*properties.values(), *(node for node in (additional, items) if node is not None))
    return Node(
        type=schema.get("type"),
        nullable=schema.get("nullable", False),
        preserves_unknown=schema.get("x-kubernetes-preserve-unknown-fields", False) or extra is True,
        properties=properties if schema.get("type") == "object" and additional is None else None,
        additional=additional,
        items=items,
        defaults=defaults,
        list_keys=tuple(schema.get("x-kubernetes-list-map-keys", ())),
        is_set=schema.get("x-kubernetes-list-type") == "set",
        rules=RuleSet(rules) if rules else None,
        has_rules=bool(rules) or any(node.has_rules for node in below),
        defaulted=frozenset(name for name, _ in defaults),
    )


def _rule(entry: dict[str, Any]) -> Rule:
    field_path = tuple(part for part in re.split(r"[.\[\]']+", entry.get("fieldPath", "")) if part)
    return Rule(entry["rule"], entry.get("message") or f"must satisfy {' '.join(entry['rule'].split())}", field_path)


def with_defaults(node: Node, value: Any) -> Any:
    """A value with the defaults below it filled in."""
    if isinstance(value, dict) and node.properties is not None:
        children = node.properties
        filled = {name: with_defaults(children[name], item) if name in children else item for name, item in value.items()}
        return {**dict(node.defaults), **filled}
    if isinstance(value, dict) and node.additional is not None:
        additional = node.additional
        return {name: with_defaults(additional, item) for name, item in value.items()}
    if isinstance(value, list) and node.items is not None:
        items = node.items
        return [with_defaults(items, item) for item in value]
    return value


def _structural(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema in JSON Schema's own words (draft 4, whose numbers OpenAPI 3.0 shares)."""
    result: dict[str, Any] = {key: schema[key] for key in _COPIED if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    elif "type" in schema:
        result["type"] = schema["type"]
    if schema.get("nullable") and "type" in result:
        result["type"] = [*([result["type"]] if isinstance(result["type"], str) else result["type"]), "null"]
    if schema.get("type") == "integer":
        lowest, highest = _LIMITS[schema.get("format", "int64")]
        result["minimum"] = max(lowest, schema.get("minimum", lowest))
        result["maximum"] = min(highest, schema.get("maximum", highest))
    elif schema.get("format") in _FORMATS:
        result["format"] = schema["format"]
    if "properties" in schema:
        result["properties"] = {name: _structural(child) for name, child in schema["properties"].items()}
    for key in ("items", "not", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = _structural(schema[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in schema and not (key == "anyOf" and schema.get("x-kubernetes-int-or-string")):
            result[key] = [_structural(child) for child in schema[key]]
    return result
