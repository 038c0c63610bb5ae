"""Writes statuses to the API server: only what has changed, never faster than it can bear, and never over somebody else.

Each write names the version that it is based on, so that a conflict is noticed; then the watch brings the newer version and
what is to be written is worked out again. Who finds its own words changed back again and again writes ever less often: another
installation that goes by the same name would do the same without end. Deliberately absent: what a status says (``document``,
``merge``).
"""

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import msgspec
import structlog

from gwanmun.api.decode import decode_json
from gwanmun.api.kinds import KINDS, split_api_version
from gwanmun.kube import UNREADABLE, ApiError, KubeClient, Present, UnreachableError, authors_of_status, object_path
from gwanmun.kube.client import MERGE_PATCH
from gwanmun.kube.refusal import missing_right, namespace_ends
from gwanmun.names import ObjectKey
from gwanmun.status.merge import Document, merged, part_of_ours

MANAGER: Final = "gwanmun-controller"
"""Field manager of every status that we write: by it we know our own words where the status does not say whose they are."""
_AS_US: Final = {"fieldManager": MANAGER}
_YIELD_EVERY: Final = 50  # objects that need no write; thousands of them must not hold up everything else

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """`controllers` are the names under which entries are ours. `settle` is how many seconds (more than 0) lie between two
    writes of one object, so that a thousand routes that attach at once are not a thousand writes of their Gateway.

    A status that others change back is written anew `contested_after` times where no more than `contested_within` seconds lie
    between, then after each of the `pauses` in turn, and at last after the longest again and again.
    """

    controllers: frozenset[str]
    concurrency: int = 8
    per_second: float = 200.0
    settle: float = 0.25
    retry: float = 1.0
    retry_refused: float = 30.0
    contested_after: int = 3
    contested_within: float = 60.0
    pauses: tuple[float, ...] = (10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(slots=True)
class WriterStats:
    """Counted since the start, for metrics."""

    written: int = 0
    conflicts: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Said:
    """What we wrote last: a hash of what we had to say, and what the API server made of it, which may know fewer fields."""

    uid: str
    hash: int
    taken: Any


@dataclass(slots=True)
class _Quarrel:
    """How often others have changed back what we wrote, `last` when (of our clock), and how often we have waited since."""

    last: float
    times: int = 0
    pauses: int = 0


class StatusWriter:
    """Owns what is at the API server and what is due. `document_of` says what an object's status should be, given what there is
    of it (None: nothing)."""

    def __init__(
        self,
        client: KubeClient,
        options: WriterOptions,
        document_of: Callable[[ObjectKey, Present], Document | None],
        *,
        clock: Callable[[], float],
        now: Callable[[], str],
        written: Callable[[ObjectKey, Present, Document], None] = lambda *_: None,
    ) -> None:
        """`written` is told of every status that was written, and of the object as it was before."""
        self.stats = WriterStats()
        self._written = written
        self._client = client
        self._options = options
        self._document_of = document_of
        self._clock = clock
        self._now = now
        self._present: dict[ObjectKey, Present] = {}
        self._due: list[tuple[float, int, ObjectKey]] = []
        self._queued: dict[ObjectKey, float] = {}
        self._rest_until: dict[ObjectKey, float] = {}
        self._busy: set[ObjectKey] = set()
        self._serial = count()
        self._news = asyncio.Event()
        self._leading = False
        self._said: dict[ObjectKey, _Said] = {}
        self._quarrels: dict[ObjectKey, _Quarrel] = {}
        self._refused: dict[ObjectKey, tuple[int, str]] = {}  # what each object suffers that was told or is told by another

    def lead(self, leading: bool) -> None:
        """Whether we are the one that writes. Whoever begins to lead looks at everything once."""
        began = leading and not self._leading
        self._leading = leading
        if began:
            self._said.clear()  # whoever led meanwhile may have said other things
            for key in self._present:
                self.touch(key)
        self._news.set()

    def observe(self, changes: Mapping[ObjectKey, Present | None]) -> None:
        """What is at the API server now; None: gone."""
        for key, present in changes.items():
            if present is None:
                self._present.pop(key, None)
                self._rest_until.pop(key, None)
                self._said.pop(key, None)
                self._quarrels.pop(key, None)
                self._refused.pop(key, None)
                self._queued.pop(key, None)  # what is left of it in `_due` means nothing any more
            else:
                self._present[key] = present
                self.touch(key)

    def touch(self, key: ObjectKey) -> None:
        """The object's status may have to be another one now. Whoever does not lead looks at everything when it begins to."""
        if not self._leading:
            return
        self._queue(key, max(self._clock(), self._rest_until.get(key, 0.0)))

    async def run(self) -> None:
        """Write until cancelled."""
        slots = asyncio.Semaphore(self._options.concurrency)
        idle = 0
        async with asyncio.TaskGroup() as tasks:
            while True:
                # The slot comes first: whoever waits for one with a document in hand may write it over a newer version.
                await slots.acquire()
                key = await self._next()
                present = self._present.get(key)
                wanted = None if present is None else self._document_of(key, present)
                document = None if present is None else self._work_out(wanted, present)
                if present is None or document is None:
                    self._refused.pop(key, None)
                    slots.release()
                    idle += 1
                    if idle % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                    continue
                self._busy.add(key)
                tasks.create_task(self._write(key, present, document, _hash(wanted), slots))
                await asyncio.sleep(1 / self._options.per_second)

    @property
    def backlog(self) -> int:
        """How many objects are still to be looked at."""
        return len(self._queued) + len(self._busy)

    def _queue(self, key: ObjectKey, when: float) -> None:
        if self._queued.get(key, float("inf")) <= when:
            return
        self._queued[key] = when
        heapq.heappush(self._due, (when, next(self._serial), key))
        self._news.set()

    async def _next(self) -> ObjectKey:
        """The next object whose time has come."""
        while True:
            self._news.clear()
            now = self._clock()
            while self._leading and self._due and self._due[0][0] <= now:
                when, _, key = heapq.heappop(self._due)
                if self._queued.get(key) != when:
                    continue  # it was put forward
                del self._queued[key]
                if key in self._busy:
                    self._queue(key, now + self._options.settle)
                    continue
                if (rest := self._rest_until.get(key, 0.0)) > now:
                    self._queue(key, rest)  # it was queued before it came to rest
                    continue
                return key
            wait = self._due[0][0] - now if self._leading and self._due else None
            with contextlib.suppress(TimeoutError):
                # Not wait_for: that of Python 3.11 forgets that it was cancelled where there is news at the same moment.
                async with asyncio.timeout(wait):
                    await self._news.wait()

    def _work_out(self, wanted: Document | None, present: Present) -> Document | None:
        return merged(wanted, present, controllers=self._options.controllers, now=self._now())

    async def _write(self, key: ObjectKey, present: Present, document: Document, said: int, slots: asyncio.Semaphore) -> None:
        try:
            taken = await self._patch(key, present, document)
        except (ApiError, UnreachableError) as error:
            self._failed(key, error)
        else:
            self.stats.written += 1
            self._refused.pop(key, None)
            self._heard(key, present, _Said(present.uid, said, taken))
        finally:
            self._busy.discard(key)
            slots.release()

    async def _patch(self, key: ObjectKey, present: Present, document: Document) -> Any:
        """Gives what is ours in the status that is there now; None where that cannot be read."""
        kind = KINDS[key.group, key.kind]
        group, version = split_api_version(present.api_version)
        path = object_path(group, version, kind.plural, namespace=key.namespace, name=key.name)
        body = {"metadata": {"resourceVersion": present.resource_version, "uid": present.uid}, "status": document}
        self._rest_until[key] = self._clock() + self._options.settle
        answer = await self._client.call("PATCH", f"{path}/status", body=body, content_type=MERGE_PATCH, parameters=_AS_US)
        self._written(key, present, document)
        # The watch will tell the same in a moment; what is worked out before that must not be based on the old version.
        try:
            written = decode_json(answer, kind)
        except UNREADABLE:
            return None
        status = written.status  # type: ignore[union-attr]  # of the kinds that are written every one has it
        if self._present.get(key) is present:  # else the watch was faster, and may know more than this answer
            metadata = written.metadata
            self._present[key] = Present(
                written.api_version,
                metadata.uid,
                metadata.resource_version,
                metadata.generation,
                status,
                authors_of_status(metadata),
            )
        return part_of_ours(status, self._options.controllers)

    def _heard(self, key: ObjectKey, present: Present, said: _Said) -> None:
        """The status was written over what was `present`."""
        before = self._said.get(key)
        found = part_of_ours(present.status, self._options.controllers)
        if before is not None and (before.uid, before.hash) == (said.uid, said.hash) and before.taken != found:
            self._contested(key)  # there was other than we had said, and we have nothing new to say
        if key in self._present:
            self._said[key] = said

    def _contested(self, key: ObjectKey) -> None:
        """Once is a person, or one who has yet to hear of us. Who does it again and again will not stop: so we do."""
        options, now = self._options, self._clock()
        quarrel = self._quarrels.get(key)
        # The other one may wait as long as we do.
        peace = options.contested_within + (2 * options.pauses[-1] if quarrel is not None and quarrel.pauses else 0.0)
        if quarrel is None or now - quarrel.last > peace:
            self._quarrels[key] = quarrel = _Quarrel(now)
        quarrel.last, quarrel.times = now, quarrel.times + 1
        if quarrel.times < options.contested_after:
            return
        pause = options.pauses[min(quarrel.pauses, len(options.pauses) - 1)]
        self._rest_until[key] = now + pause
        quarrel.pauses += 1
        if quarrel.pauses == 1:
            log.error(
                "status_contested",
                object=str(key),
                problem="somebody else changes its status back again and again; it is written less and less often now",
                controllers=sorted(options.controllers),
                remedy="where another installation of gwanmun serves the same GatewayClass: give one of the two another "
                "--controller-name (controller.controllerNames of the chart) and a GatewayClass of that name",
            )

    def _failed(self, key: ObjectKey, error: ApiError | UnreachableError) -> None:
        if key not in self._present or (isinstance(error, ApiError) and error.code == 404):
            return  # deleted meanwhile, whether or not the watch has said so
        retry = self._options.retry
        if isinstance(error, ApiError):
            if error.code == 409:
                self.stats.conflicts += 1
            else:
                self._complain(key, error)
                if error.code in (401, 403, 422):
                    retry = self._options.retry_refused
        if not (isinstance(error, ApiError) and error.code == 409):
            self.stats.failed += 1
        self._queue(key, self._clock() + retry)

    def _complain(self, key: ObjectKey, error: ApiError) -> None:
        """Once for each kind of refusal, until no object suffers it any more: then it would be news again."""
        if error.code == 403 and namespace_ends(str(error)):
            return
        refusal = _refusal(key, error)
        known = refusal in self._refused.values()
        self._refused[key] = refusal
        if known:
            return
        grant = {}
        if error.code == 403 and missing_right(str(error)):
            kind = KINDS[key.group, key.kind]
            grant = {"grant": f'apiGroups: ["{key.group}"], resources: ["{kind.plural}/status"], verbs: ["patch"]'}
        log.error("status_not_written", object=str(key), problem=str(error), **grant)


def _hash(wanted: Document | None) -> int:
    return hash(msgspec.json.encode(wanted, order="deterministic"))


def _refusal(key: ObjectKey, error: ApiError) -> tuple[int, str]:
    """What counts as the same refusal: a right that is missing is missing for all objects, and an API server that is busy or
    broken is so for all; anything else is about this one."""
    for_all = error.code in (401, 429) or error.code >= 500 or (error.code == 403 and missing_right(str(error)))
    return error.code, KINDS[key.group, key.kind].plural if for_all else str(key)
