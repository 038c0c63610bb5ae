"""A resolution as YAML that a person reads: conditions on one line each, keys as text, defaults left out."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import timedelta
from typing import Any

import yaml

from golden.material import named
from gwanmun import ir
from gwanmun.names import ClusterKey, ListenerKey
from gwanmun.resolve.model import Resolution
from gwanmun.resolve.status import (
    Condition,
    GatewayClassStatus,
    GatewayStatus,
    ListenerSetStatus,
    ListenerStatus,
    ObjectConditions,
    ParentRef,
    ParentStatus,
    PolicyStatus,
    RouteStatus,
    Status,
)

UNION_TYPES = (
    ir.ExactPath,
    ir.PrefixPath,
    ir.RegexPath,
    ir.ReplaceFullPath,
    ir.ReplacePrefix,
    ir.Forward,
    ir.Redirect,
    ir.Respond,
    ir.HttpListener,
    ir.TlsListener,
    ir.TcpListener,
    ir.UdpListener,
    ir.SystemTrust,
    ir.TrustAnchors,
)
"""Alternatives of one another: shown with their type's name."""


def render(resolution: Resolution) -> str:
    """The text of an output file."""
    sections = {name: section(resolution) for name, section in SECTIONS.items()}
    return yaml.dump(sections, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=124)


def conditions(resolution: Resolution) -> dict[str, Any]:
    """What each object is told, by object."""
    return {str(key): _status(status) for key, status in sorted(resolution.statuses.items())}


def model(resolution: Resolution) -> Any:
    """What is served."""
    return _value(resolution.model)


SECTIONS: Mapping[str, Callable[[Resolution], Any]] = {"conditions": conditions, "ir": model}
"""The sections of an output file, in order."""


def _status(status: Status) -> dict[str, Any]:
    observed = {"observedGeneration": status.generation} if status.generation else {}
    match status:
        case GatewayStatus() | ListenerSetStatus():
            attached = status.attached_listener_sets if isinstance(status, GatewayStatus) else None
            sets = {"attachedListenerSets": attached} if attached else {}
            listeners = {listener.name: _listener(listener) for listener in status.listeners}
            return {**observed, **_conditions(status.conditions), **sets, "listeners": listeners}
        case GatewayClassStatus() | ObjectConditions():
            return {**observed, **_conditions(status.conditions)}
        case RouteStatus():
            return {**observed, **_parents(status.parents)}
        case PolicyStatus():
            return {**observed, **_parents(status.ancestors)}


def _listener(listener: ListenerStatus) -> dict[str, Any]:
    kinds = " ".join(kind for _, kind in listener.supported_kinds)
    return {"supportedKinds": kinds, "attachedRoutes": listener.attached_routes, **_conditions(listener.conditions)}


def _parents(parents: tuple[ParentStatus, ...]) -> dict[str, Any]:
    return {_parent(parent.parent_ref): _conditions(parent.conditions) for parent in parents}


def _parent(ref: ParentRef) -> str:
    name = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
    section = f" section {ref.section_name}" if ref.section_name else ""
    return f"{ref.kind} {name}{section}{f' port {ref.port}' if ref.port else ''}"


def _conditions(found: tuple[Condition, ...]) -> dict[str, str]:
    return {condition.type: _condition(condition) for condition in found}


def _condition(condition: Condition) -> str:
    status = "Unknown" if condition.status is None else str(condition.status)
    text = f"{status} {condition.reason}"
    return named(f"{text}: {condition.message}" if condition.message else text)


def _value(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return named(value)
        case timedelta():
            return f"{value.total_seconds():g}s"
        case ClusterKey():
            identity = f" as {value.identity}" if value.identity else ""
            return f"{value} {value.protocol}{identity}"
        case ListenerKey():
            return f"{value.owner.kind} {value.owner.namespaced_name} {value.name}"
        case tuple() if hasattr(value, "_fields"):
            return str(value)  # a key
        case Mapping():
            return {_value(key): _value(item) for key, item in value.items()}
        case tuple() | frozenset():
            return [_value(item) for item in value]
        case _ if is_dataclass(value):
            return _record(value)
    raise TypeError(f"{type(value)} cannot be shown")


def _record(value: Any) -> Any:
    shown = {
        field.name: _value(getattr(value, field.name))
        for field in fields(value)
        if field.repr and getattr(value, field.name) != _default(field)
    }
    if not isinstance(value, UNION_TYPES):
        return shown
    return {type(value).__name__: next(iter(shown.values())) if list(shown) == ["value"] else shown}


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)
