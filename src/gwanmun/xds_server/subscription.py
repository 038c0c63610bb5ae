"""One resource type on one stream: what the client wants, holds and refuses, and what to send it next. Pure.

At most one response is outstanding. Whatever changes meanwhile is only marked, so the next response carries the newest
state and a burst costs one response; but Secrets go one by one. Deliberately absent: the order between types (``delta``).
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gwanmun.xds_server.messages import Request, Response
from gwanmun.xds_server.resources import CLUSTER, LISTENER, SCOPED_ROUTES, SECRET, Resource, stand_in

WILDCARD = "*"

LEGACY_WILDCARD = frozenset({CLUSTER, LISTENER, SCOPED_ROUTES})
"""Types for which a first request that names nothing means everything. For the others it means nothing: Envoy sends such
a request for, say, endpoints when it reconnects while it happens to have no cluster."""

KEPT_THOUGH_REFUSED = frozenset({CLUSTER, SECRET})
"""Types of which Envoy may keep what it refused, and then takes the same without a word when it comes again."""

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
    """State that lives as long as the stream. `pending` is ordered: a dict used as a set.

    `accepted` has the resources behind `held` as far as we know them; the client `reported` the others. `restore`
    names what to put back as it was before anything else is sent, and `restoring` says that the outstanding response does.
    """

    type_url: str
    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    accepted: dict[str, Resource] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)
    pending: dict[str, None] = field(default_factory=dict)
    forced: set[str] = field(default_factory=set)
    suspects: deque[tuple[str, ...]] = field(default_factory=deque)
    greeting: bool = False
    outstanding: Response | None = None
    reported: frozenset[str] = frozenset()
    restore: tuple[str, ...] = ()
    restoring: bool = False
    given_up: str = ""

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def is_sending(self, name: str) -> bool:
        """Whether it is about to be sent, or was and is not answered yet."""
        under_way = self.outstanding.resources if self.outstanding is not None else ()
        return name in self.pending or any(sent.name == name for sent in under_way)

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
        self.reported = frozenset(request.initial_versions)
        known = ((available.get(name), version) for name, version in self.held.items())
        self.accepted.update((same.name, same) for same, version in known if same and same.version == version)
        if not request.subscribe and self.type_url in LEGACY_WILDCARD:
            self._want_everything(available)
        # A name that the client says it holds is a reconnect, not a question: it is answered only where it differs.
        self._subscribe(request.subscribe, request.initial_versions.keys(), available)
        self._unsubscribe(request.unsubscribe)
        for name, version in self.held.items():
            if name not in available or available[name].version != version:
                self.pending[name] = None
        for name in [name for name in self.held if not self.wants(name)]:
            self._forget(name)

    def update(self, request: Request, available: Mapping[str, Resource]) -> None:
        """Any later request: changes of the subscription."""
        self._subscribe(request.subscribe, (), available)
        self._unsubscribe(request.unsubscribe)

    def accept(self) -> Response:
        """The client took the outstanding response."""
        restoring = self.restoring
        response = self._answered()
        for taken in response.resources:
            if not restoring:
                self.rejected.pop(taken.name, None)
            if self.wants(taken.name):
                self.held[taken.name] = taken.version
                self.accepted[taken.name] = taken
        for name in response.removed:
            self._drop(name)
        return response

    def refuse(self, error: str) -> Resource | None:
        """The client refused the outstanding response. Returns the culprit, once it is known.

        Clients apply what they can of a response and still refuse it as a whole, so of a response with several resources
        nothing is known: parts of it are sent again until the bad ones stand alone.
        """
        restoring = self.restoring
        response = self._answered()
        if restoring:
            return None  # what could be put back was; there is nothing else to try
        names = (*response.removed, *(refused.name for refused in response.resources))
        named = tuple(name for name in names if _speaks_of(error, name))
        if self.type_url in KEPT_THOUGH_REFUSED:
            self.restore = tuple(name for name in named or names if self.wants(name))
        if len(names) > 1:
            self._isolate(names, named)
            return None
        for name in response.removed:  # nothing better can be done about a thing that will not go
            self._drop(name)
        for culprit in response.resources:
            if self.wants(culprit.name):
                self._reject(culprit, error)
            return culprit
        return None

    def give_up(self, culprits: Iterable[Resource], error: str) -> None:
        """Stop waiting for an answer to the outstanding response, because of `culprits` (see `Stream.stop_waiting`).

        The answer may yet come: see `explain`. Until then nothing is known of the rest of that response.
        """
        response = self._answered()
        self.given_up = response.nonce
        self._forget_versions((*response.removed, *(sent.name for sent in response.resources)))
        for culprit in culprits:
            self._reject(culprit, error)
        self.restore = tuple(culprit.name for culprit in culprits)

    def explain(self, nonce: str, error: str) -> None:
        """A late refusal, of a response that was given up, says what was wrong."""
        if nonce == self.given_up:
            for name, rejection in self.rejected.items():
                if _speaks_of(error, name):
                    self.rejected[name] = replace(rejection, error=error)

    def next(self, nonce: str, available: Mapping[str, Resource], limits: Limits, *, removals: bool) -> Response | None:
        """The next response, which is then outstanding; None when there is nothing to say. Precondition: none outstanding.

        Without `removals`, what the client holds and should lose stays pending.
        """
        if self.restore and (response := self._restore(nonce)):
            return response
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
            # Sent again in parts, refused Secrets would be accepted (see `_restore`): the culprit has to be known at once.
            if self.type_url == SECRET and (removed or upserts):
                break
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

    def is_settled(self, wanted: Resource) -> bool:
        """The client has taken or refused just this, so that it is not sent, marked or not."""
        refused = self.rejected.get(wanted.name)
        known = (self.held.get(wanted.name), refused.version if refused else None)
        return wanted.name not in self.forced and wanted.version in known

    def _differs(self, wanted: Resource) -> bool:
        refused = self.rejected.get(wanted.name)
        if self.held.get(wanted.name) == wanted.version:
            self.rejected.pop(wanted.name, None)  # back to what the client has had all along
            return False
        return refused is None or refused.version != wanted.version

    def _restore(self, nonce: str) -> Response | None:
        """Put back what a refused response may have left half done: the version before, or nothing.

        Envoy keeps a cluster that it refused late in a list of clusters to warm. There it would accept the same cluster
        without a word when it is sent again, and, as long as it is there, Envoy answers no further response of this type.

        A Secret it remembers before it tries to use it. Sent again, on this stream or the next, the same one is accepted as
        no change; and every later change of a listener with it is refused. A removal it ignores: what it never accepted is
        replaced by a stand-in, which it refuses as well but which is not the Secret any more.
        """
        names, self.restore = self.restore, ()
        back = tuple(self.accepted[name] for name in names if name in self.accepted)
        if self.type_url == SECRET:
            lost = tuple(name for name in names if name not in self.accepted)
            self.held.update((name, UNKNOWN) for name in lost)
            back += tuple(stand_in(name) for name in lost)
            names = ()
        # A cluster that the client had before this stream is in use, and we do not know what it was.
        away = tuple(name for name in names if name not in self.accepted and name not in self.reported)
        if not back and not away:
            return None
        self.restoring = True
        self.outstanding = Response(self.type_url, nonce, back, away)
        return self.outstanding

    def _isolate(self, names: tuple[str, ...], named: tuple[str, ...]) -> None:
        """Queue `names` to be sent in parts: those that the error speaks of one by one after all others, else halves."""
        self._forget_versions(names)
        others = tuple(name for name in names if name not in named)
        if named and (others or len(named) > 1):
            parts = [others, *((name,) for name in named)]
        else:
            parts = [names[: len(names) // 2], names[len(names) // 2 :]]
        self.suspects.extendleft(reversed(parts))

    def _forget_versions(self, names: Iterable[str]) -> None:
        for name in names:
            if self.wants(name):
                self.held[name] = UNKNOWN
                self.pending[name] = None

    def _reject(self, culprit: Resource, error: str) -> None:
        self.rejected[culprit.name] = Rejection(self.type_url, culprit.name, culprit.version, error)

    def _answered(self) -> Response:
        response = self.outstanding
        assert response is not None
        self.outstanding = None
        self.restoring = False
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
        for name, wanted in available.items():
            if self.held.get(name) != wanted.version:
                self.pending[name] = None

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
        self._drop(name)
        self.rejected.pop(name, None)
        self.pending.pop(name, None)
        self.forced.discard(name)

    def _drop(self, name: str) -> None:
        self.held.pop(name, None)
        self.accepted.pop(name, None)


def _speaks_of(error: str, name: str) -> bool:
    """Whether an error text blames `name`, as in Envoy's "Error adding/updating cluster(s) a: too large, b: no address"."""
    return re.search(rf"(?:^|[\s,]){re.escape(name)}: ", error) is not None
