"""Proxies that prove who they are by a bearer token. Whom to ask about a token is the caller's business.

What was found out is kept for a short while, since a control plane that starts is asked about everyone at once, and whoever is
turned away comes again and again. Tokens themselves are not kept, only their digests. Deliberately absent: Kubernetes.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from gwanmun.xds_server.publisher import Peer
from gwanmun.xds_server.server import Cause, Metadata, Refusal

_MOST_KEPT: Final = 4096
_LONGEST_TOKEN: Final = 16 * 1024
_REVIEWS: Final = 16
"""At once."""
_MOST_REFUSED: Final = 20
"""Tokens of one host, in the time that an answer counts: made-up ones are not to keep the API server busy."""

T = TypeVar("T")

Review = Callable[[str], Awaitable["Holder | Refusal"]]
"""Asks about a token. TimeoutError where nobody answers."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a token is. `names` are proven by it, most telling first."""

    names: tuple[str, ...]


class TokenIdentity:
    """Is an `Identify`: takes ``authorization: Bearer ...`` of a stream. `lifetime` is how many seconds an answer counts, be
    it a refusal or not. That nobody could be asked is no answer; neither is that a host's tokens are not checked for a while.
    """

    def __init__(self, review: Review, *, clock: Callable[[], float], lifetime: float = 10.0) -> None:
        self._review = review
        self._clock = clock
        self._lifetime = lifetime
        # Apart: whoever comes with ever new tokens of his own making is not to push out those that hold.
        self._holders: dict[bytes, tuple[float, Holder]] = {}
        self._refusals: dict[bytes, tuple[float, Refusal]] = {}
        self._hosts: Counter[str] = Counter()
        self._until = 0.0
        self._reviews = asyncio.Semaphore(_REVIEWS)

    async def __call__(self, metadata: Metadata, peer: Peer) -> Peer | Refusal:
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return Refusal("no token: a proxy shows its service account token as authorization: Bearer", Cause.NO_TOKEN)
        if len(token) > _LONGEST_TOKEN:
            return Refusal("the token is too long", Cause.BAD_TOKEN)
        digest = hashlib.sha256(token.encode()).digest()
        found = self._known(digest) or await self._asked(token, digest, _host(peer.address))
        return found if isinstance(found, Refusal) else replace(peer, names=found.names)

    async def _asked(self, token: str, digest: bytes, host: str) -> Holder | Refusal:
        async with self._reviews:
            # Waiting took its time: it may be known now, and it may be clear what comes from there.
            if (found := self._known(digest)) is not None:
                return found
            if self._refused_from(host) >= _MOST_REFUSED:
                raise TimeoutError(f"{_MOST_REFUSED} tokens of {host} were refused a moment ago; others are not checked yet")
            found = await self._review(token)
        until = self._clock() + self._lifetime
        if isinstance(found, Refusal):
            _keep(self._refusals, digest, (until, found))
            self._hosts[host] += 1
        else:
            _keep(self._holders, digest, (until, found))
        return found

    def _refused_from(self, host: str) -> int:
        """Tokens that were refused there since the interval began; all hosts begin anew at once."""
        if self._clock() >= self._until:
            self._hosts, self._until = Counter(), self._clock() + self._lifetime
        return self._hosts[host]

    def _known(self, digest: bytes) -> Holder | Refusal | None:
        now = self._clock()
        for kept in (self._holders.get(digest), self._refusals.get(digest)):
            if kept is not None and kept[0] > now:
                return kept[1]
        return None


def _host(address: str) -> str:
    """Of "ipv4:10.0.0.9:1234" what stays the same from one connection to the next."""
    return address.rpartition(":")[0]


def _keep(kept: dict[bytes, T], digest: bytes, entry: T) -> None:
    """The oldest make room; they end first."""
    kept.pop(digest, None)
    while len(kept) >= _MOST_KEPT:
        del kept[next(iter(kept))]
    kept[digest] = entry
