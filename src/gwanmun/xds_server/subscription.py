"""One resource type on one stream: what the client wants, holds and refuses, and what to send it next. Pure.

At most one response is outstanding. Whatever changes meanwhile is only marked, so the next response carries the newest
state and a burst costs one response. Deliberately absent: the order between types (``delta``).
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gwanmun.xds_server.messages import Request, Response
from gwanmun.xds_server.resources import CLUSTER, LISTENER, SCOPED_ROUTES, Resource

WILDCARD = "*"

LEGACY_WILDCARD = frozenset({CLUSTER, LISTENER, SCOPED_ROUTES})
"""Types for which a first request that names nothing means everything. For the others it means nothing: Envoy sends such
a request for, say, endpoints when it reconnects while it happens to have no cluster."""

UNKNOWN = ""
"""The version of a resource that the client has in some form: it refused a response that held others as well."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one response carries at most (a single larger resource still goes, alone)."""

    resources: int = 1000
    bytes: int = 4 << 20


@dataclass(frozen=True, slots=True)
class Rejection:
    """A resource that the client refused by itself; it keeps what it had before. Not sent again until it changes."""

    type_url: str
    name: str
    version: str
    error: str


@dataclass(slots=True)
class Subscription:
    """State that lives as long as the stream. `pending` is ordered: a dict used as a set."""

    type_url: str
    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)
    pending: dict[str, None] = field(default_factory=dict)
    forced: set[str] = field(default_factory=set)
    suspects: deque[tuple[str, ...]] = field(default_factory=deque)
    greeting: bool = False
    outstanding: Response | None = None

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def mark(self, names: Iterable[str]) -> None:
        """These may differ from what the client holds."""
        if self.wildcard:
            self.pending.update(dict.fromkeys(names))
        else:
            self.pending.update((name, None) for name in names if name in self.names)

    def force(self, name: str) -> None:
        """Send `name` whatever the client holds."""
        self.forced.add(name)
        self.pending[name] = None

    def open(self, request: Request, available: Mapping[str, Resource]) -> None:
        """The first request of this type on the stream."""
        self.held.update(request.initial_versions)
        if not request.subscribe and self.type_url in LEGACY_WILDCARD:
            self._want_everything(available)
        # A name that the client says it holds is a reconnect, not a question: it is answered only where it differs.
        self._subscribe(request.subscribe, request.initial_versions.keys(), available)
        self._unsubscribe(request.unsubscribe)
        self.pending.update(dict.fromkeys(self.held))
        for name in [name for name in self.held if not self.wants(name)]:
            self._forget(name)

    def update(self, request: Request, available: Mapping[str, Resource]) -> None:
        """Any later request: changes of the subscription."""
        self._subscribe(request.subscribe, (), available)
        self._unsubscribe(request.unsubscribe)

    def accept(self) -> Response:
        """The client took the outstanding response."""
        response = self._answered()
        for taken in response.resources:
            self.rejected.pop(taken.name, None)
            if self.wants(taken.name):
                self.held[taken.name] = taken.version
        for name in response.removed:
            self.rejected.pop(name, None)
            self.held.pop(name, None)
        return response

    def refuse(self, error: str) -> Resource | None:
        """The client refused the outstanding response. Returns the culprit, once it is known.

        Clients apply what they can of a response and still refuse it as a whole, so of a response with several resources
        nothing is known: each half is sent again by itself until the bad ones stand alone.
        """
        response = self._answered()
        names = (*response.removed, *(refused.name for refused in response.resources))
        if len(names) > 1:
            self._isolate(names)
            return None
        for name in response.removed:  # nothing better can be done about a thing that will not go
            self.held.pop(name, None)
        for culprit in response.resources:
            if self.wants(culprit.name):
                self.rejected[culprit.name] = Rejection(self.type_url, culprit.name, culprit.version, error)
            return culprit
        return None

    def next(self, nonce: str, available: Mapping[str, Resource], limits: Limits, *, removals: bool) -> Response | None:
        """The next response, which is then outstanding; None when there is nothing to say. Precondition: none outstanding.

        Without `removals`, what the client holds and should lose stays pending.
        """
        while self.suspects:
            group = [name for name in self.suspects.popleft() if name in self.pending]
            if response := self._respond(nonce, group, available, limits, removals=removals):
                return response
        return self._respond(nonce, list(self.pending), available, limits, removals=removals)

    def _respond(
        self, nonce: str, names: list[str], available: Mapping[str, Resource], limits: Limits, *, removals: bool
    ) -> Response | None:
        removed: list[str] = []
        upserts: list[Resource] = []
        room = limits.bytes
        for name in names:
            wanted = available.get(name)
            if wanted is None:
                if name in self.held and not removals:
                    continue
                if name in self.held or name in self.forced:
                    removed.append(name)
                self.rejected.pop(name, None)
            elif name in self.forced or self._differs(wanted):
                if upserts and (len(upserts) >= limits.resources or room < len(wanted.body)):
                    continue
                upserts.append(wanted)
                room -= len(wanted.body)
            self.pending.pop(name)
            self.forced.discard(name)
        if not removed and not upserts and not self.greeting:
            return None
        self.greeting = False
        self.outstanding = Response(self.type_url, nonce, tuple(upserts), tuple(removed))
        return self.outstanding

    def _differs(self, wanted: Resource) -> bool:
        refused = self.rejected.get(wanted.name)
        if self.held.get(wanted.name) == wanted.version:
            self.rejected.pop(wanted.name, None)  # back to what the client has had all along
            return False
        return refused is None or refused.version != wanted.version

    def _isolate(self, names: tuple[str, ...]) -> None:
        for name in names:
            if self.wants(name):
                self.held[name] = UNKNOWN
                self.pending[name] = None
        middle = len(names) // 2
        self.suspects.extendleft((names[middle:], names[:middle]))

    def _answered(self) -> Response:
        response = self.outstanding
        assert response is not None
        self.outstanding = None
        return response

    def _subscribe(self, names: Iterable[str], known: Iterable[str], available: Mapping[str, Resource]) -> None:
        for name in names:
            if name == WILDCARD:
                self._want_everything(available)
                continue
            self.names.add(name)
            if name not in known:
                self.force(name)

    def _want_everything(self, available: Mapping[str, Resource]) -> None:
        self.wildcard = True
        # A client that holds nothing waits for a first answer, even one that says there is nothing.
        self.greeting = not self.held
        self.pending.update(dict.fromkeys(available))

    def _unsubscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
                for lost in [held for held in {**self.held, **self.pending, **self.rejected} if held not in self.names]:
                    self._forget(lost)
            elif name in self.names:
                self.names.discard(name)
                if self.wildcard:
                    self.force(name)  # tells the client whether it still gets this one as a part of everything
                else:
                    self._forget(name)

    def _forget(self, name: str) -> None:
        self.held.pop(name, None)
        self.rejected.pop(name, None)
        self.pending.pop(name, None)
        self.forced.discard(name)
