"""A delta-xDS client in a few lines, as strict as the protocol and as lazy as Envoy, to hold the machine against."""

from collections import deque
from dataclasses import dataclass, field

from gwanmun.xds_server.delta import Stream
from gwanmun.xds_server.messages import Request, Response
from gwanmun.xds_server.resources import CLUSTER, ENDPOINTS, SECRET, Resource, ResourceSet, resource, stand_in

BAD = b"bad"


def is_bad(body: bytes) -> bool:
    return body.startswith(BAD)


def resources(url_to_bodies: dict[str, dict[str, bytes]]) -> ResourceSet:
    return ResourceSet(
        {url: {name: resource(name, body) for name, body in bodies.items()} for url, bodies in url_to_bodies.items()}
    )


@dataclass
class Held:
    """One type at the client. `versions` is what it would report after a reconnect; `bodies` is what it runs.

    `looked_at` are the Secrets that it would take as no change without a look, even if it has refused them.
    """

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    bodies: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    looked_at: dict[str, bytes] = field(default_factory=dict)

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names


@dataclass
class Client:
    """Handles one response at a time; `partial` says whether it applies the good part of what it refuses, as Envoy does."""

    stream: Stream
    partial: bool = True
    names_culprits: bool = True
    follows_clusters: bool = False
    types: dict[str, Held] = field(default_factory=dict)
    inbox: deque[Response] = field(default_factory=deque)
    seen: list[Response] = field(default_factory=list)

    def send(self, request: Request) -> None:
        self.inbox.extend(self.stream.receive(request))

    def subscribe(self, url: str, *names: str) -> None:
        held = self.types.setdefault(url, Held())
        held.wildcard |= "*" in names
        held.names |= set(names) - {"*"}
        self.send(Request(url, subscribe=names))

    def unsubscribe(self, url: str, *names: str) -> None:
        held = self.types[url]
        held.wildcard &= "*" not in names
        held.names -= set(names)
        for name in [name for name in held.bodies if not held.wants(name)]:
            del held.bodies[name]
            held.versions.pop(name, None)
        held.looked_at = {name: body for name, body in held.looked_at.items() if held.wants(name)}
        self.send(Request(url, unsubscribe=names))

    def reconnect(self, stream: Stream) -> None:
        self.stream = stream
        self.inbox.clear()
        for url, held in self.types.items():
            # What was applied out of a refused response has no version: a real client cannot report it either.
            held.bodies = {name: body for name, body in held.bodies.items() if name in held.versions}
            names = (("*",) if held.wildcard else ()) + tuple(sorted(held.names))
            self.send(Request(url, subscribe=names, initial_versions=dict(held.versions)))

    def step(self) -> None:
        """Handle the oldest unread response."""
        response = self.inbox.popleft()
        self.seen.append(response)
        held = self.types[response.type_url]
        seen = [r.name for r in response.resources if held.looked_at.get(r.name) == r.body]
        bad = [r.name for r in response.resources if r.name not in seen and self._refuses(r)]
        if response.type_url == SECRET:
            held.looked_at |= {r.name: r.body for r in response.resources if held.wants(r.name)}
        if not bad or self.partial:
            for name in response.removed:
                held.bodies.pop(name, None)
                held.versions.pop(name, None)
            for taken in response.resources:
                if held.wants(taken.name) and taken.name not in bad:
                    held.bodies[taken.name] = taken.body
                    held.versions[taken.name] = taken.version if not bad else ""
        if bad:
            for taken in response.resources:
                if taken.name not in bad and taken.name in held.versions and self.partial:
                    del held.versions[taken.name]
            error = f"Error adding {', '.join(f'{name}: too bad' for name in bad)}" if self.names_culprits else "too bad"
            self.send(Request(response.type_url, nonce=response.nonce, error=error))
        else:
            self.send(Request(response.type_url, nonce=response.nonce))
        if self.follows_clusters and response.type_url == CLUSTER:
            self._follow_clusters()

    def answer_all_of(self, url: str) -> None:
        """Handle what has come, up to the last of one type and what comes of that in turn."""
        while any(response.type_url == url for response in self.inbox):
            self.step()

    def _refuses(self, offered: Resource) -> bool:
        return is_bad(offered.body) or offered == stand_in(offered.name)

    def drain(self) -> None:
        for _ in range(10_000):
            if not self.inbox:
                return
            self.step()
        raise AssertionError("the server never stops talking")

    def _follow_clusters(self) -> None:
        clusters = set(self.types[CLUSTER].bodies)
        endpoints = self.types.setdefault(ENDPOINTS, Held())
        if gone := endpoints.names - clusters:
            self.unsubscribe(ENDPOINTS, *sorted(gone))
        if new := clusters - endpoints.names:
            self.subscribe(ENDPOINTS, *sorted(new))
