"""Who is connected, what each scope of proxies is to hold, and how far each proxy has come.

`Publisher` is the one object that the rest of the control plane talks to: it publishes sets, and it tells what became of
them. It belongs to one event loop. Deliberately absent: gRPC (``server``) and the protocol (``delta``).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gwanmun.xds_server.delta import Stream
from gwanmun.xds_server.messages import Node, Request, Response
from gwanmun.xds_server.resources import Changes, Need, Publication, ResourceSet
from gwanmun.xds_server.subscription import Limits, Rejection

Scope = str
"""Names a group of proxies that all hold the same set, such as one Gateway's."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the connection: its address, and the names in its verified certificate, if it has one."""

    address: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProxyState:
    """How far one connected proxy has come. `applied` is a serial of `Publisher.publish`; None before the first."""

    node: Node
    scope: Scope
    peer: Peer
    applied: int | None
    rejections: tuple[Rejection, ...]
    awaited: tuple[Need, ...]
    resources_sent: int


@dataclass(eq=False, slots=True)
class Session:
    """One proxy's stream and what is to be written to it. The server empties `outbox` whenever `wake` is set.

    `failure` says why the proxy's messages could not be read any further.
    """

    node: Node
    scope: Scope
    peer: Peer
    stream: Stream
    outbox: list[Response] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    failure: str | None = None

    def put(self, responses: list[Response]) -> None:
        """Queue for writing. Short by design: a stream has one response outstanding for each type."""
        if responses:
            self.outbox += responses
            self.wake.set()

    def close(self) -> None:
        """End the stream in good order; the proxy keeps what it has and connects again."""
        self.closed = True
        self.wake.set()

    @property
    def state(self) -> ProxyState:
        return ProxyState(
            node=self.node,
            scope=self.scope,
            peer=self.peer,
            applied=self.stream.applied,
            rejections=self.stream.rejections,
            awaited=self.stream.awaited,
            resources_sent=self.stream.resources_sent,
        )


class Publisher:
    """The sets of all scopes and the sessions that follow them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._published: dict[Scope, Publication] = {}
        self._sessions: dict[Session, None] = {}
        self._followers: dict[Scope, dict[Session, None]] = {}
        self._observers: dict[object, Callable[[], None]] = {}

    def publish(self, scope: Scope, resources: ResourceSet, changes: Changes | None = None) -> int:
        """Make `resources` what every proxy of `scope` is to hold; returns the serial that it will have applied.

        `changes` spares the comparison with the set before where the caller knows what it changed. Publishing the set
        that is already there returns its serial.
        """
        before = self._published.get(scope)
        if changes is None:
            changes = resources.changes_since(before.resources if before else ResourceSet())
        if before is not None and not changes:
            return before.serial
        publication = Publication(before.serial + 1 if before else 1, resources, changes)
        self._published[scope] = publication
        for session in self._followers.get(scope, ()):
            session.put(session.stream.publish(publication))
        self._changed()
        return publication.serial

    def retire(self, scope: Scope) -> None:
        """Forget a scope and end its streams. Its proxies keep what they have: to empty them, publish an empty set."""
        self._published.pop(scope, None)
        for session in self._followers.get(scope, ()):
            session.close()
        self._changed()

    def published(self, scope: Scope) -> Publication | None:
        """The newest publication of a scope."""
        return self._published.get(scope)

    def proxies(self, scope: Scope | None = None) -> tuple[ProxyState, ...]:
        """The proxies connected at the moment, of one scope or of all."""
        return tuple(session.state for session in (self._sessions if scope is None else self._followers.get(scope, ())))

    def followed(self) -> frozenset[Scope]:
        """The scopes that a proxy is connected to."""
        return frozenset(self._followers)

    def observe(self, observer: Callable[[], None]) -> Callable[[], None]:
        """Call `observer` after every change of `proxies`, in the event loop; it must be quick. Returns how to stop it."""
        key = object()
        self._observers[key] = observer
        return lambda: self._observers.pop(key, None) and None

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition over `proxies` and `published`. Time out with ``asyncio.timeout``."""
        changed = asyncio.Event()
        stop = self.observe(changed.set)
        try:
            while not holds():
                changed.clear()
                await changed.wait()
        finally:
            stop()

    async def until_applied(self, scope: Scope, serial: int, *, proxies: int = 1) -> tuple[ProxyState, ...]:
        """Wait until at least `proxies` proxies of the scope are connected and each has applied `serial`, or refused part
        of it: see their `rejections`."""

        def applied() -> bool:
            states = self.proxies(scope)
            return len(states) >= proxies and all((state.applied or 0) >= serial for state in states)

        await self.until(applied)
        return self.proxies(scope)

    def connect(self, node: Node, scope: Scope, peer: Peer) -> Session:
        """Begin a proxy's session. Precondition: the scope is published.

        Whoever calls waits for that first. Answering earlier would tell a proxy that outlived the last control plane that
        everything it serves is gone.
        """
        publication = self._published[scope]
        session = Session(node, scope, peer, Stream(publication.resources, publication.serial, self._limits))
        self._sessions[session] = None
        self._followers.setdefault(scope, {})[session] = None
        self._changed()
        return session

    def receive(self, session: Session, request: Request) -> None:
        """Hand a proxy's message to its stream."""
        session.put(session.stream.receive(request))
        self._changed()

    def stop_waiting(self, session: Session) -> None:
        """Let a stream go on without what its proxy does not ask for."""
        session.put(session.stream.stop_waiting())
        self._changed()

    def disconnect(self, session: Session) -> None:
        """End a proxy's session."""
        self._sessions.pop(session, None)
        followers = self._followers.get(session.scope, {})
        followers.pop(session, None)
        if not followers:
            self._followers.pop(session.scope, None)
        self._changed()

    def close(self) -> None:
        """End all streams in good order."""
        for session in self._sessions:
            session.close()
        self._changed()

    def _changed(self) -> None:
        for observer in tuple(self._observers.values()):
            observer()
