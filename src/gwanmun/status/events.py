"""Events: what a human who looks at an object should see happened to it. Few, and never worth waiting for.

What counts is a condition that turned: a Gateway that serves or stops serving, a route that is not taken on. `notes` is
pure; `EventWriter` sends, drops what comes too fast, and says nothing twice within ten minutes.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

from gwanmun.kube import ApiError, KubeClient, Present, UnreachableError, collection_path
from gwanmun.kube.refusal import missing_right
from gwanmun.names import ObjectKey

_TOLD: Final = {"Gateway": ("Accepted", "Programmed"), "ListenerSet": ("Accepted",), "GatewayClass": ("Accepted",)}
_TOLD_WHEN_FALSE: Final = ("Accepted", "ResolvedRefs")
_QUEUE: Final = 100
_PER_SECOND: Final = 5.0
_SILENT_S: Final = 600.0
_LONGEST_MESSAGE: Final = 1000
_COMPONENT: Final = "gwanmun-controller"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Note:
    """One event to be."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def notes(key: ObjectKey, before: Any, document: Mapping[str, Any]) -> Iterator[Note]:
    """What is worth telling of a status that was just written, given the one before."""
    told = _TOLD.get(key.kind)
    if told is not None:
        yield from _turned(getattr(before, "conditions", ()), document.get("conditions", ()), told, only_false=False)
        return
    known = {_place(entry): entry.conditions for entry in getattr(before, "parents", ())}
    for parent in document.get("parents", ()):
        reference = parent["parentRef"]
        place = (parent["controllerName"], reference.get("namespace"), reference["name"], reference.get("sectionName"))
        found = known.get(place, ())
        for note in _turned(found, parent["conditions"], _TOLD_WHEN_FALSE, only_false=True):
            yield Note(note.type, note.reason, f"for {reference.get('kind', 'Gateway')} {reference['name']}: {note.message}")


def _place(entry: Any) -> tuple[str, str | None, str, str | None]:
    reference = entry.parent_ref
    return entry.controller_name, reference.namespace, reference.name, reference.section_name


def _turned(
    before: Iterable[Any], after: Iterable[Mapping[str, Any]], told: tuple[str, ...], *, only_false: bool
) -> Iterator[Note]:
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    for condition in after:
        state = (condition["status"], condition["reason"])
        if condition["type"] not in told or known.get(condition["type"]) == state:
            continue
        if condition["status"] == "True":
            # Of a new object only that it serves is news.
            if not only_false and (condition["type"] == "Programmed" or known.get(condition["type"], ("",))[0] == "False"):
                yield Note("Normal", condition["type"], condition["message"] or f"the condition {condition['type']} holds")
        elif condition["reason"] != "Pending" or known.get(condition["type"], ("",))[0] == "True":
            # What is only not there yet is no news; what was there and is not any more is.
            yield Note("Warning", condition["reason"], f"{condition['type']} is {condition['status']}: {condition['message']}")


class EventWriter:
    """Owns the queue. `now` is RFC 3339 text; `serial` makes names of events unique."""

    def __init__(self, client: KubeClient, *, clock: Callable[[], float], now: Callable[[], str]) -> None:
        self.dropped = 0
        self._client = client
        self._clock = clock
        self._now = now
        self._queue: asyncio.Queue[tuple[ObjectKey, Present, Note]] = asyncio.Queue(_QUEUE)
        self._said: dict[tuple[ObjectKey, Note], float] = {}
        self._serial = 0
        self._refused_in: str | None = None  # a namespace; that it works in another one says nothing of this

    def tell(self, key: ObjectKey, present: Present, found: Iterable[Note]) -> None:
        """Send these, if there is room for them."""
        now = self._clock()
        for note in found:
            if now - self._said.get((key, note), -_SILENT_S) < _SILENT_S:
                continue
            if self._queue.full():
                self.dropped += 1
                continue
            if len(self._said) > 10 * _QUEUE:
                self._said = {one: when for one, when in self._said.items() if now - when < _SILENT_S}
            self._said[key, note] = now
            self._queue.put_nowait((key, present, note))

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            key, present, note = await self._queue.get()
            self._serial += 1
            namespace = key.namespace or "default"
            body = event(key, present, note, namespace=namespace, now=self._now(), serial=self._serial)
            try:
                await self._client.call("POST", collection_path("", "v1", "events", namespace), body=body)
            except (ApiError, UnreachableError) as error:
                self._complain(error, namespace)
            else:
                self._refused_in = None if self._refused_in == namespace else self._refused_in
            await asyncio.sleep(1 / _PER_SECOND)

    def _complain(self, error: ApiError | UnreachableError, namespace: str) -> None:
        """Once until it is mended, and only where something can be done about it: an event that is lost is no harm."""
        if not (isinstance(error, ApiError) and error.code == 403 and missing_right(str(error))):
            return
        if self._refused_in is None:
            self._refused_in = namespace
            log.warning("events_refused", problem=str(error), grant='apiGroups: [""], resources: ["events"], verbs: ["create"]')


def event(key: ObjectKey, present: Present, note: Note, *, namespace: str, now: str, serial: int) -> dict[str, Any]:
    """The Event object. Pure."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{key.name[:200]}.{serial:x}-", "namespace": namespace},
        "involvedObject": {
            "apiVersion": present.api_version,
            "kind": key.kind,
            "namespace": key.namespace,
            "name": key.name,
            "uid": present.uid,
        },
        "type": note.type,
        "reason": note.reason,
        "message": note.message[:_LONGEST_MESSAGE],
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
