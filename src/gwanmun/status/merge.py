"""What is to be written into an object's `status`, given what is there. Pure.

Entries of other controllers stay as they are. Times stay where a condition has not turned. Where nothing would change there
is nothing to write, and where what is there speaks of a newer generation than we do there is nothing to write yet.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from gwanmun.api import Condition
from gwanmun.api.references import ParentReference
from gwanmun.kube import Present

Document = dict[str, Any]

_SHARED: Final = {"parents": "parentRef", "ancestors": "ancestorRef"}
"""Lists that controllers share, with the name of the reference in their entries."""


def merged(wanted: Document | None, present: Present, *, controllers: frozenset[str], now: str) -> Document | None:
    """The whole new `status`, or None where nothing is to be written. `wanted` None: we have nothing to say any more.

    `now` is RFC 3339 text, for conditions that have turned.
    """
    field = next((name for name in _SHARED if hasattr(present.status, name)), None)
    if wanted is None and field is None:
        return None
    if _newest(wanted or {}) < _newest_of_ours(present.status, field, controllers) and wanted is not None:
        return None
    if field is None:
        assert wanted is not None
        document = _with_times(wanted, present.status, now)
    else:
        entries = (wanted or {}).get(field, ())
        document = {field: list(_entries(entries, getattr(present.status, field), _SHARED[field], controllers, now))}
    return None if _is(document, present.status) else document


def part_of_ours(status: Any, controllers: frozenset[str]) -> Any:
    """What of a status is ours: some entries of a list that controllers share, else all of it."""
    field = next((name for name in _SHARED if hasattr(status, name)), None)
    return status if field is None else tuple(one for one in getattr(status, field) if one.controller_name in controllers)


def _entries(
    wanted: Sequence[Document], there: Iterable[Any], ref: str, controllers: frozenset[str], now: str
) -> Iterator[Document]:
    """Each entry in the place that it has already, new ones at the end."""
    left = list(wanted)
    for entry in there:
        if entry.controller_name not in controllers:
            yield _entry_document(entry, ref)
            continue
        mine = next((one for one in left if _same_place(one, entry, ref)), None)
        if mine is not None:
            left.remove(mine)
            yield {**mine, "conditions": _timed(mine["conditions"], entry.conditions, now)}
    for one in left:
        yield {**one, "conditions": _timed(one["conditions"], (), now)}


def _same_place(wanted: Document, entry: Any, ref: str) -> bool:
    return wanted["controllerName"] == entry.controller_name and _reference(wanted[ref]) == _reference_of(entry, ref)


def _reference(document: Document) -> ParentReference:
    return msgspec.convert(document, ParentReference)


def _reference_of(entry: Any, ref: str) -> ParentReference:
    found: ParentReference = entry.parent_ref if ref == "parentRef" else entry.ancestor_ref
    return found


def _entry_document(entry: Any, ref: str) -> Document:
    """Another controller's entry, as it was."""
    reference = _reference_of(entry, ref)
    return {
        ref: {"group": reference.group, "kind": reference.kind, **msgspec.to_builtins(reference)},
        "controllerName": entry.controller_name,
        "conditions": [_condition_document(condition) for condition in entry.conditions],
    }


def _condition_document(condition: Condition) -> Document:
    """All fields that the API requires, also those that are empty."""
    document: Document = msgspec.to_builtins(condition)
    return {"status": condition.status, "reason": condition.reason, "message": condition.message, **document}


def _with_times(wanted: Document, there: Any, now: str) -> Document:
    """A status that is all ours. Kinds whose status has no type of its own have plain data there."""
    document = dict(wanted)
    if "conditions" in wanted:
        document["conditions"] = _timed(wanted["conditions"], _conditions(there), now)
    if "listeners" in wanted:
        known = {listener.name: listener.conditions for listener in there.listeners}
        document["listeners"] = [
            {**listener, "conditions": _timed(listener["conditions"], known.get(listener["name"], ()), now)}
            for listener in wanted["listeners"]
        ]
    return document


def _conditions(status: Any) -> Sequence[Condition]:
    if isinstance(status, dict):
        return msgspec.convert(status.get("conditions") or [], tuple[Condition, ...])
    found: Sequence[Condition] = getattr(status, "conditions", ())
    return found


def _timed(wanted: Iterable[Document], there: Iterable[Condition], now: str) -> list[Document]:
    known = {condition.type: condition for condition in there}
    return [{**one, "lastTransitionTime": _since(one, known.get(one["type"]), now)} for one in wanted]


def _since(wanted: Document, before: Condition | None, now: str) -> str:
    if before is not None and before.status == wanted["status"] and before.last_transition_time:
        return before.last_transition_time
    return now


def _is(document: Document, status: Any) -> bool:
    """Whether the document says what is there already, whatever fields are spelled out. What it does not name stays."""
    if isinstance(status, dict):
        return all(status.get(key) == value for key, value in document.items())
    made, type_ = msgspec.convert(document, type(status)), type(status)
    fields = zip(type_.__struct_encode_fields__, type_.__struct_fields__, strict=True)
    return all(getattr(made, field) == getattr(status, field) for name, field in fields if name in document)


def _newest(document: Mapping[str, Any]) -> int:
    """The newest generation that a status speaks of."""
    lists = [document.get("conditions", ())]
    lists += [entry["conditions"] for name in ("parents", "ancestors", "listeners") for entry in document.get(name, ())]
    return max((one.get("observedGeneration", 0) for conditions in lists for one in conditions), default=0)


def _newest_of_ours(status: Any, field: str | None, controllers: frozenset[str]) -> int:
    if field is None:
        conditions = _conditions(status)
    else:
        mine = (entry for entry in getattr(status, field) if entry.controller_name in controllers)
        conditions = [condition for entry in mine for condition in entry.conditions]
    return max((condition.observed_generation for condition in conditions), default=0)
