"""The delta-ADS machine of one stream: takes requests and publications, returns responses. No await, clock or logging.

Order between types is make before break. A step from one published set to the next runs through STAGES: clusters, then
listeners, then routes, then what is gone; a stage begins when the one before is accepted, and with it whatever its resources
need (a cluster serves only once its endpoints have come). A newer set waits until the step is done, so a constant flow of
changes cannot starve a later stage. Endpoints, secrets, runtime values and filter configurations refer to nothing: they are
outside the steps and always follow the newest set.

Deliberately absent: sockets and encoding (``server``), and who else is connected (``publisher``).
"""

from collections import ChainMap
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import NamedTuple

from gwanmun.xds_server.messages import Request, Response
from gwanmun.xds_server.resources import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    SCOPED_ROUTES,
    Need,
    Publication,
    Resource,
    ResourceSet,
)
from gwanmun.xds_server.subscription import WILDCARD, Limits, Rejection, Subscription

STAGES = ((CLUSTER,), (LISTENER,), (ROUTES, SCOPED_ROUTES))
"""First runs first. A listener leaves in the same response as its successor comes, as one port cannot have two."""

_STAGED = frozenset(url for stage in STAGES for url in stage)
_REFERRING = (LISTENER, ROUTES, SCOPED_ROUTES)
"""Types that name clusters."""

_STUCK = "the proxy neither accepts this cluster nor says why: it keeps warming without asking for endpoints"


class _Awaited(NamedTuple):
    """The type that needs something; `anew` if this stream sent it, so that a client may need again what it has. Then only a
    response counts that is newer than the one with the nonce `since`."""

    origin: str
    anew: bool
    since: int = 0


class Stream:
    """One proxy's stream. Begins with the set that is current; `publish` must be given every publication after it."""

    def __init__(self, resources: ResourceSet, serial: int, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        self._subscriptions: dict[str, Subscription] = {}
        self._newest = self._target = resources
        self._newest_serial = serial
        self._marked: dict[str, dict[str, None]] = {}
        self._awaited: dict[Need, _Awaited] = {}
        self._nonce = 0
        self._answered_nonce = 0
        self._asked = False
        self._sent = 0
        self._applied: int | None = None

    @property
    def applied(self) -> int | None:
        """Serial of the newest publication that the client has accepted in full, but for `rejections`.

        None before the first; a client that has not asked for listeners yet has applied nothing.
        """
        return self._applied

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """What the client refuses at the moment."""
        return tuple(r for subscription in self._subscriptions.values() for r in subscription.rejected.values())

    @property
    def awaited(self) -> tuple[Need, ...]:
        """What the client must ask for and accept before the step goes on. See `stop_waiting`."""
        return (*self._awaited, *self._unasked())

    @property
    def resources_sent(self) -> int:
        """Resources and removals sent on this stream so far, repetitions included."""
        return self._sent

    def held(self, type_url: str) -> dict[str, str]:
        """Versions by name that the client is known to hold."""
        subscription = self._subscriptions.get(type_url)
        return dict(subscription.held) if subscription else {}

    def receive(self, request: Request) -> list[Response]:
        """Handle a message of the client."""
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            subscription = self._subscriptions[request.type_url] = Subscription(request.type_url)
            subscription.open(request, self._current(request.type_url))
            self._await_of_known(subscription)
            self._await_again(request.type_url)
        else:
            answered = subscription.outstanding
            if answered is not None and request.nonce == answered.nonce:
                self._settle(subscription, answered, request.error)
            elif request.error is not None:
                subscription.explain(request.nonce, request.error)
            subscription.update(request, self._current(request.type_url))
        unneeded = (Need(request.type_url, name) for name in request.unsubscribe)
        self._stop_awaiting(need for need in unneeded if not self._is_about_to_be_asked_for(need))
        return list(self._responses())

    def publish(self, publication: Publication) -> list[Response]:
        """Move on to a newer set, now or, for what goes in stages, when the step under way is done."""
        self._newest, self._newest_serial = publication.resources, publication.serial
        for url, names in publication.changes.items():
            if url in _STAGED:
                self._marked.setdefault(url, {}).update(dict.fromkeys(names))
                continue
            if subscription := self._subscriptions.get(url):
                subscription.mark(names)
            # What the step under way may still need goes with the next one.
            if gone := [name for name in names if name not in publication.resources.of(url)]:
                self._marked.setdefault(url, {}).update(dict.fromkeys(gone))
        return list(self._responses())

    def stop_waiting(self) -> list[Response]:
        """Go on without what was `awaited` but never asked for: a client that does not ask is not to be cut off from the rest.
        What it did ask for is on its way, and coming late it would be missed: routes would lead where nothing is yet.

        One case is worse. Envoy finds some faults of a cluster (a Maglev table size that is not prime) only after it began
        to warm it; the cluster then warms for ever, and while any cluster warms Envoy sends neither ACK nor NACK for
        clusters. The culprits show by never asking for their endpoints although Envoy answered later responses.
        """
        stuck = self._stuck_clusters()
        if stuck is None:
            self._stop_awaiting(self._never_asked_for())
            self._asked = True
            return list(self._responses())
        if self._answered_nonce < int(stuck.nonce):
            return list(self._probe())
        never = self._never_asked_for()
        culprits = tuple(sent for sent in stuck.resources if not never.isdisjoint(sent.needs))
        self._stop_awaiting(never)
        self._subscriptions[CLUSTER].give_up(culprits, _STUCK)
        return list(self._responses())

    def _never_asked_for(self) -> set[Need]:
        """What is awaited and not on its way."""
        return {need for need in self._awaited if not self._is_on_its_way(need)}

    def _is_about_to_be_asked_for(self, need: Need) -> bool:
        """Whether what needs it is not answered yet. Who drops it now had it for something that went before that."""
        waiting = self._awaited.get(need)
        origin = self._subscriptions.get(waiting.origin) if waiting is not None else None
        under_way = origin.outstanding if origin is not None else None
        return under_way is not None and any(need in sent.needs for sent in under_way.resources)

    def _is_on_its_way(self, need: Need) -> bool:
        subscription = self._subscriptions.get(need.type_url)
        return subscription is not None and subscription.wants(need.name) and subscription.is_sending(need.name)

    def _stuck_clusters(self) -> Response | None:
        """The unanswered response with clusters of which some do not ask for what they need."""
        clusters = self._subscriptions.get(CLUSTER)
        response = clusters.outstanding if clusters else None
        never = self._never_asked_for()
        if response is None or all(never.isdisjoint(sent.needs) for sent in response.resources):
            return None
        return response

    def _probe(self) -> Iterator[Response]:
        """Something harmless to answer: when it is, the client has also been through all that was sent before."""
        for url, subscription in self._subscriptions.items():
            if url not in _STAGED and subscription.held and subscription.outstanding is None:
                subscription.force(next(iter(subscription.held)))
                yield from self._send(url, removals=False)
                return

    def _current(self, type_url: str) -> Mapping[str, Resource]:
        target = self._target.of(type_url)
        if type_url in _STAGED or self._newest is self._target:
            return target
        return ChainMap(self._newest.of(type_url), target)  # type: ignore[arg-type]  # never written to

    def _unasked(self) -> tuple[Need, ...]:
        """What a client that comes back has yet to subscribe to, before we know what it routes to.

        Its first message is about clusters. To take away those that are gone, before it has the routes that do without
        them, would cost it requests.
        """
        if self._asked:
            return ()
        if LISTENER not in self._subscriptions:
            return (Need(LISTENER, WILDCARD),)
        return tuple(
            need
            for listener in self._target.of(LISTENER).values()
            for need in listener.needs
            if need.type_url in _REFERRING and need.name in self._current(need.type_url) and not self._wants(need)
        )

    def _wants(self, need: Need) -> bool:
        subscription = self._subscriptions.get(need.type_url)
        return subscription is not None and subscription.wants(need.name)

    def _settle(self, subscription: Subscription, answered: Response, error: str | None) -> None:
        self._answered_nonce = max(self._answered_nonce, int(answered.nonce))
        if error is None:
            subscription.accept()
            current = self._current(subscription.type_url)
            # What was taken away may be wanted again meanwhile; that it is gone is no answer to that.
            gone = (name for name in answered.removed if name not in current)
            arrived = (*(taken.name for taken in answered.resources), *gone)
        else:
            culprit = subscription.refuse(error)
            arrived = (culprit.name,) if culprit else ()
            self._stop_awaiting(culprit.needs if culprit else ())
        url = subscription.type_url
        needs = (Need(url, name) for name in arrived if name not in subscription.forced)
        self._stop_awaiting(need for need in needs if self._is_newer(answered, need))

    def _is_newer(self, answered: Response, need: Need) -> bool:
        waiting = self._awaited.get(need)
        return waiting is None or int(answered.nonce) > waiting.since

    def _stop_awaiting(self, needs: Iterable[Need]) -> None:
        if self._awaited:
            for need in needs:
                self._awaited.pop(need, None)

    def _responses(self) -> Iterator[Response]:
        """Everything that may go out now."""
        while True:
            yield from self._send_unstaged()
            if not (yield from self._send_stages()):
                # A cluster that was just sent has made its endpoints due again.
                yield from self._send_unstaged()
                return
            self._target = self._newest
            if not self._marked:
                self._note_applied()
                return
            for url, names in self._marked.items():
                if subscription := self._subscriptions.get(url):
                    subscription.mark(names)
            self._await_of_kept(self._marked.get(CLUSTER, ()))
            self._marked.clear()

    def _send_unstaged(self) -> Iterator[Response]:
        for url in self._subscriptions:
            if url not in _STAGED:
                yield from self._send(url, removals=False)

    def _send_stages(self) -> Generator[Response, None, bool]:
        """Run the step as far as it goes; the result says whether it is done."""
        for stage in STAGES:
            for url in stage:
                yield from self._send(url, removals=url != CLUSTER)
            if any(self._is_outstanding(url) for url in stage) or (
                CLUSTER in stage and any(waiting.origin == CLUSTER for waiting in self._awaited.values())
            ):
                return False
        if self._awaited:
            return False
        if self._unasked():
            return True
        self._asked = True
        # A client that refused new routes still runs the old ones, and those need what we would take away here.
        if any(self._subscriptions[url].rejected for url in _REFERRING if url in self._subscriptions):
            return True
        yield from self._send(CLUSTER, removals=True)
        if not self._marked:
            for url in self._subscriptions:
                if url not in _STAGED:
                    yield from self._send(url, removals=True)
        return not self._is_outstanding(CLUSTER)

    def _send(self, type_url: str, *, removals: bool) -> Iterator[Response]:
        subscription = self._subscriptions.get(type_url)
        if subscription is None or subscription.outstanding is not None:
            return
        response = subscription.next(str(self._nonce + 1), self._current(type_url), self._limits, removals=removals)
        if response is not None:
            self._nonce += 1
            self._sent += len(response.resources) + len(response.removed)
            for sent in response.resources:
                for need in sent.needs:
                    self._await(need, _Awaited(type_url, anew=True))
            yield response

    def _await(self, need: Need, waiting: _Awaited) -> None:
        if need.name not in self._current(need.type_url):
            return
        subscription = self._subscriptions.get(need.type_url)
        is_of_new_cluster = waiting.origin == CLUSTER and waiting.anew and need.type_url == ENDPOINTS
        if is_of_new_cluster:
            # What is under way may meet a client that has just dropped the cluster of this name which was there before.
            waiting = waiting._replace(since=self._nonce)
        if subscription is not None and subscription.wants(need.name):
            if is_of_new_cluster:
                # Envoy replaces a changed cluster by a new one that waits for endpoints, but it does not ask for them
                # again, because the old one is subscribed already.
                subscription.force(need.name)
            elif need.name not in subscription.pending and (
                need.name in subscription.held or need.name in subscription.rejected
            ):
                return
            elif subscription.is_settled(self._current(need.type_url)[need.name]):
                return  # it changed and changed back: nothing will be sent that could be accepted
        self._awaited[need] = waiting

    def _await_of_known(self, subscription: Subscription) -> None:
        """A client that comes back with clusters may have lost the last stream before their endpoints came."""
        if subscription.type_url == CLUSTER:
            self._await_of_kept(subscription.held)

    def _await_of_kept(self, names: Iterable[str]) -> None:
        """Clusters that a client has already are not sent; what they need may have gone and come back meanwhile."""
        subscription, clusters = self._subscriptions.get(CLUSTER), self._current(CLUSTER)
        if subscription is not None:
            for name in names:
                kept = clusters.get(name) if name in subscription.held else None
                for need in kept.needs if kept is not None else ():
                    self._await(need, _Awaited(CLUSTER, anew=False))

    def _await_again(self, type_url: str) -> None:
        """A client that comes back tells type by type what it has: look again at what is awaited of this one."""
        for need in [need for need in self._awaited if need.type_url == type_url]:
            self._await(need, self._awaited.pop(need))

    def _is_outstanding(self, type_url: str) -> bool:
        subscription = self._subscriptions.get(type_url)
        return subscription is not None and subscription.outstanding is not None

    def _note_applied(self) -> None:
        waiting = any(self._is_outstanding(url) for url in self._subscriptions)
        if not waiting and LISTENER in self._subscriptions and not self._unasked():
            self._applied = self._newest_serial
