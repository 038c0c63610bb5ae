"""Putting a person's settings over ours. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any


def merged(base: Any, over: Any) -> Any:
    """`over` on `base`: maps key by key (null removes), lists whose items all have names by name, all else replaced."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        result = dict(base)
        for key, value in over.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merged(result.get(key), value)
        return result
    if _named(base) and _named(over):
        by_name = {item["name"]: item for item in base}
        for item in over:
            by_name[item["name"]] = merged(by_name.get(item["name"]), item)
        return list(by_name.values())
    return merged({}, over) if isinstance(over, Mapping) else over


def _named(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(i, Mapping) and isinstance(i.get("name"), str) for i in value)
    )
