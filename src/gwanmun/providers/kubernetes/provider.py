"""Objects of an API server, followed: the loop around `replica`, one task for each kind.

A kind whose CRD is not installed counts as empty and is looked for again and again. While the API server is away, or does
not let us, what was known stays in force. Deliberately absent: API discovery, since asking for the list itself tells which
version is served.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from gwanmun.api import Object
from gwanmun.api.kinds import ALIAS_GROUPS, KINDS, Kind
from gwanmun.kube import ApiError, KubeClient, Present, UnreachableError, collection_path
from gwanmun.kube.client import JSON, METADATA, METADATA_LIST
from gwanmun.names import ObjectKey
from gwanmun.providers.kubernetes.replica import Changes, ExpiredError, Lines, Replica, WatchError
from gwanmun.providers.kubernetes.trim import FIELD_SELECTORS

PAGE: Final = 500
_SETTLE_S: Final = 0.02  # a burst (kubectl apply, a rolling update) arrives as one batch
_SETTLE_AT_MOST_S: Final = 0.05
_WATCH_S: Final = (240, 300)  # so that watches do not all end at once
_LOOK_AGAIN_S: Final = 5.0  # for a kind that is not there
_FORBIDDEN_AGAIN_S: Final = 15.0
_FORBIDDEN: Final = "forbidden"
_BACKOFF_S: Final = (0.1, 10.0)
_UNREACHABLE_AGAIN_S: Final = 2.0
"""At most: knocking costs an absent API server nothing, and everybody waits for what has changed when it is back."""
_ASKED_AT_MOST_S: Final = 60.0
"""What an API server, or a proxy before it, may ask us to wait: it cannot tell so well when it will be back."""
_MISSED_AGAIN_S: Final = 1.0
_ABSENT_FOR_GOOD: Final = 12
"""How often a kind that was there has to be missing before its objects count as gone: an API server that starts says of
every CRD for a moment that it does not know it."""
_REFUSED_FOR_GOOD: Final = 4
"""How often access has to be refused before that counts: an API server that starts refuses everybody for a moment."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """`namespaces` empty watches the whole cluster. `groups` are those of KINDS, and aliases of them. `labels` are those that
    objects have to have; `page` and `event` say how much of them is asked for."""

    namespaces: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = tuple(KINDS.values())
    aliases: Mapping[str, str] = field(default_factory=lambda: ALIAS_GROUPS)
    labels: Mapping[str, str] = field(default_factory=dict)
    page: str = JSON
    event: str = JSON


def metadata_of(kinds: tuple[Kind, ...], labels: Mapping[str, str], namespaces: tuple[str, ...]) -> KubernetesOptions:
    """Only what all objects have, of those with these labels."""
    return KubernetesOptions(namespaces, kinds, {}, labels, METADATA_LIST, METADATA)


@dataclass(frozen=True, slots=True)
class Batch:
    """What has changed: objects for resolve (None: gone), and what is at the API server for the writer of statuses."""

    objects: Mapping[ObjectKey, Object | None]
    present: Mapping[ObjectKey, Present | None]


@dataclass(slots=True)
class WatchStats:
    """Counted since the start, for metrics."""

    restarts: int = 0
    relists: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Unread:
    """Why an object that is not known may be there all the same. `grant` is the rule that is lacking, if that is why."""

    problem: str
    grant: str | None = None


class KubernetesProvider:
    """Owns one watch for each kind (and namespace). `draw` gives numbers from 0 to 1, for waits that must not coincide."""

    def __init__(self, client: KubeClient, options: KubernetesOptions, *, draw: Callable[[], float]) -> None:
        self.stats = WatchStats()
        self._client = client
        self._draw = draw
        self._options = options
        self._labels = {"labelSelector": ",".join(f"{k}={v}" for k, v in options.labels.items())} if options.labels else {}
        self._followed = [_Followed(kind, namespace) for kind in _kinds(options) for namespace in _scopes(kind, options)]
        self._pending = Changes()
        self._news = asyncio.Event()

    @property
    def synced(self) -> bool:
        """Whether every kind has been listed once, or is known not to be there or not to be ours to see."""
        return all(followed.settled for followed in self._followed)

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The kinds that have not been listed yet."""
        return tuple(sorted(followed.name for followed in self._followed if not followed.settled))

    @property
    def refused(self) -> tuple[str, ...]:
        """The kinds that we may not list."""
        return tuple(sorted(followed.name for followed in self._followed if followed.said == _FORBIDDEN))

    def unread(self, group: str, kind: str, name: str, namespace: str = "") -> Unread | None:
        """Why nothing can be said about an object; None where it is known, or known not to be there."""
        for followed in self._followed:
            if (followed.group, followed.kind.kind) == (group, kind) and followed.namespace in ("", namespace):
                return _unread(followed, namespace, name)
        return Unread(f"namespace {namespace} is not watched") if namespace else None

    def count(self) -> dict[str, int]:
        """How many objects are known of each kind."""
        counts: dict[str, int] = {}
        for followed in self._followed:
            counts[followed.replica.kind.kind] = counts.get(followed.replica.kind.kind, 0) + len(followed.replica)
        return counts

    async def watch(self) -> AsyncGenerator[Batch, None]:
        """Everything as the first batch, then what changes."""
        tasks = [asyncio.create_task(self._follow(followed), name=followed.name) for followed in self._followed]
        try:
            first = True
            while True:
                await self._or_failure(self._news.wait(), tasks)
                if not self.synced:
                    self._news.clear()
                    continue
                await self._settle()
                changes, self._pending = self._pending, Changes()
                for subject, problem in changes.unreadable.items():
                    log.warning("object_unreadable", object=subject, problem=problem)
                if first or changes.objects or changes.present:
                    first = False
                    yield Batch(changes.objects, changes.present)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _or_failure(self, wait: Coroutine[Any, Any, Any], tasks: Sequence["asyncio.Task[None]"]) -> None:
        """Wait; a follower that ends does so by a bug of ours, which must not go unseen."""
        waiting = asyncio.ensure_future(wait)
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            waiting.cancel()
            done.pop().result()

    async def _settle(self) -> None:
        """Let a burst end, but not for long."""
        left = _SETTLE_AT_MOST_S
        while left > 0:
            self._news.clear()
            try:
                # Not `wait_for`, which before Python 3.12 loses a cancellation that comes with the news.
                async with asyncio.timeout(_SETTLE_S):
                    await self._news.wait()
            except TimeoutError:
                return
            left -= _SETTLE_S

    def _take(self, changes: Changes) -> None:
        self._pending.objects.update(changes.objects)
        self._pending.present.update(changes.present)
        self._pending.unreadable.update(changes.unreadable)
        if changes.objects or changes.present or changes.unreadable:
            self._news.set()

    async def _follow(self, followed: "_Followed") -> None:
        while True:
            try:
                if not followed.replica.version:
                    await self._list(followed)
                await self._watch(followed)
                await asyncio.sleep(_BACKOFF_S[0] * self._draw())  # all watches end when the API server does
            except (ApiError, UnreachableError, WatchError, ExpiredError) as error:
                await asyncio.sleep(self._after(followed, error))
            self.stats.restarts += 1

    def _after(self, followed: "_Followed", error: Exception) -> float:
        """What to make of a failure, and how many seconds to wait."""
        followed.failures += 1
        if isinstance(error, ExpiredError) or (isinstance(error, ApiError) and error.code == 410):
            self.stats.relists += 1
            followed.replica.expire()
            # Soon, unless that was of no use the last time: to list everything is dear.
            return self._backoff(followed.failures - 1, _BACKOFF_S[1])
        if isinstance(error, ApiError):
            if error.code == 404:
                return self._missing(followed)
            if error.code in (401, 403):
                return self._refused(followed, error)
        said = str(error)
        if said != followed.said or followed.failures in (10, 100, 1000):
            followed.said = said
            log.warning("watch_interrupted", kind=followed.name, problem=said, failures=followed.failures)
        longest = _UNREACHABLE_AGAIN_S if isinstance(error, UnreachableError) else _BACKOFF_S[1]
        asked: float = (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0
        return max(min(asked, _ASKED_AT_MOST_S), self._backoff(followed.failures, longest))

    def _backoff(self, failures: int, longest: float) -> float:
        """Seconds to wait, at most `longest`."""
        wait: float = min(longest, _BACKOFF_S[0] * 2.0 ** min(failures, 10))
        return wait * (0.5 + self._draw() / 2)

    def _missing(self, followed: "_Followed") -> float:
        """Try the next older version; after the oldest the kind is not there."""
        followed.replica.expire()
        followed.version_index += 1
        if followed.version_index < len(followed.replica.kind.versions):
            return 0.0
        followed.version_index = 0
        followed.misses += 1
        if len(followed.replica) == 0 or followed.misses >= _ABSENT_FOR_GOOD:
            if len(followed.replica):
                log.warning("kind_gone", kind=followed.name)
            self._take(followed.replica.empty())
            self._settled(followed)
        again = _MISSED_AGAIN_S if len(followed.replica) else _LOOK_AGAIN_S
        return again * (0.5 + self._draw())

    def _refused(self, followed: "_Followed", error: ApiError) -> float:
        """Seconds to wait; few at first."""
        self.stats.refused += 1
        followed.refusals += 1
        if followed.refusals < _REFUSED_FOR_GOOD:
            return _BACKOFF_S[0] * 2.0**followed.refusals * (0.5 + self._draw())
        self._forbidden(followed, error)
        return _FORBIDDEN_AGAIN_S * (0.5 + self._draw())

    def _forbidden(self, followed: "_Followed", error: ApiError) -> None:
        if followed.said != _FORBIDDEN:
            followed.said = _FORBIDDEN
            log.error("access_refused", kind=followed.name, problem=str(error), grant=_grant(followed))
        self._settled(followed)

    def _settled(self, followed: "_Followed") -> None:
        if not followed.settled:
            followed.settled = True
            self._news.set()

    async def _list(self, followed: "_Followed") -> None:
        replica = followed.replica
        replica.expire()
        while not replica.version:
            parameters = {"limit": str(PAGE), **followed.selector, **self._labels}
            if replica.next_page:
                parameters["continue"] = replica.next_page
            page = await self._client.call("GET", followed.path, parameters=parameters, accept=self._options.page)
            self._take(replica.page(page))
        followed.misses = 0
        _answered(followed)
        self._settled(followed)

    async def _watch(self, followed: "_Followed") -> None:
        least, most = _WATCH_S
        parameters = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": followed.replica.version,
            "timeoutSeconds": str(int(least + (most - least) * self._draw())),
            **followed.selector,
            **self._labels,
        }
        lines = Lines()
        async with contextlib.AsyncExitStack() as stack:
            pieces = await stack.enter_async_context(self._client.stream(followed.path, parameters, accept=self._options.event))
            _answered(followed)
            async for piece in pieces:
                for line in lines.feed(piece):
                    self._take(followed.replica.line(line))
                    followed.failures = 0


def _unread(followed: "_Followed", namespace: str, name: str) -> Unread | None:
    if followed.refusals >= _REFUSED_FOR_GOOD:
        return Unread(f"{followed.name} may not be listed", _grant(followed))
    if followed.misses:
        return Unread(f"the CRD {followed.name} is not installed")
    kind = followed.replica.kind.type
    spoiled = followed.replica.spoiled.get(ObjectKey(kind.GROUP, kind.KIND, namespace, name))
    return None if spoiled is None else Unread(spoiled)


def _grant(followed: "_Followed") -> str:
    where = f"in namespace {followed.namespace}" if followed.namespace else "in a ClusterRole"
    return f'apiGroups: ["{followed.group}"], resources: ["{followed.kind.plural}"], verbs: ["list", "watch"] {where}'


def _answered(followed: "_Followed") -> None:
    followed.refusals = 0
    if followed.said:
        log.info("watch_restored", kind=followed.name)
        followed.said = ""


@dataclass(eq=False, slots=True)
class _Followed:
    """One watch and how it is doing. `said` is the last complaint that was logged."""

    kind: Kind
    namespace: str
    replica: Replica = field(init=False)
    version_index: int = 0
    misses: int = 0
    refusals: int = 0
    failures: int = 0
    settled: bool = False
    said: str = ""

    def __post_init__(self) -> None:
        self.replica = Replica(self.kind)

    @property
    def group(self) -> str:
        return self.kind.group

    @property
    def name(self) -> str:
        scope = f" in {self.namespace}" if self.namespace else ""
        return f"{self.kind.plural}{'.' if self.group else ''}{self.group}{scope}"

    @property
    def path(self) -> str:
        return collection_path(self.group, self.kind.versions[self.version_index], self.kind.plural, self.namespace)

    @property
    def selector(self) -> dict[str, str]:
        selector = FIELD_SELECTORS.get(self.kind.kind)
        return {"fieldSelector": selector} if selector else {}


def _kinds(options: KubernetesOptions) -> list[Kind]:
    """The kinds, and those of alias groups, which have the same types."""
    aliases = [
        Kind(alias, kind.kind, kind.plural, kind.type, kind.versions, kind.namespaced)
        for alias, group in options.aliases.items()
        for kind in options.kinds
        if kind.group == group
    ]
    return [*options.kinds, *aliases]


def _scopes(kind: Kind, options: KubernetesOptions) -> tuple[str, ...]:
    return options.namespaces if kind.namespaced and options.namespaces else ("",)
