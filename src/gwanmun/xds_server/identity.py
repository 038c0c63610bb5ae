"""Proxies that prove who they are by a bearer token. Whom to ask about a token is the caller's business.

What was found out is kept for a short while, since a control plane that starts is asked about everyone at once, and whoever is
turned away comes again and again. Tokens themselves are not kept, only their digests. Deliberately absent: Kubernetes.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from gwanmun.xds_server.publisher import Peer
from gwanmun.xds_server.server import Cause, Metadata, Refusal

_MOST_KEPT: Final = 4096
_LONGEST_TOKEN: Final = 16 * 1024

T = TypeVar("T")

Review = Callable[[str], Awaitable["Holder | Refusal"]]
"""Asks about a token. TimeoutError where nobody answers."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a token is. `names` are proven by it, most telling first."""

    names: tuple[str, ...]


class TokenIdentity:
    """Is an `Identify`: takes ``authorization: Bearer ...`` of a stream. `lifetime` is how many seconds an answer counts, be
    it a refusal or not. That nobody could be asked is no answer.
    """

    def __init__(self, review: Review, *, clock: Callable[[], float], lifetime: float = 10.0) -> None:
        self._review = review
        self._clock = clock
        self._lifetime = lifetime
        # Apart: whoever comes with ever new tokens of his own making is not to push out those that hold.
        self._holders: dict[bytes, tuple[float, Holder]] = {}
        self._refusals: dict[bytes, tuple[float, Refusal]] = {}

    async def __call__(self, metadata: Metadata, peer: Peer) -> Peer | Refusal:
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return Refusal("no token: a proxy shows its service account token as authorization: Bearer", Cause.NO_TOKEN)
        if len(token) > _LONGEST_TOKEN:
            return Refusal("the token is too long", Cause.BAD_TOKEN)
        digest = hashlib.sha256(token.encode()).digest()
        found = self._known(digest)
        if found is None:
            found = await self._review(token)
            until = self._clock() + self._lifetime
            if isinstance(found, Refusal):
                _keep(self._refusals, digest, (until, found))
            else:
                _keep(self._holders, digest, (until, found))
        return found if isinstance(found, Refusal) else replace(peer, names=found.names)

    def _known(self, digest: bytes) -> Holder | Refusal | None:
        now = self._clock()
        for kept in (self._holders.get(digest), self._refusals.get(digest)):
            if kept is not None and kept[0] > now:
                return kept[1]
        return None


def _keep(kept: dict[bytes, T], digest: bytes, entry: T) -> None:
    """The oldest make room; they end first."""
    kept.pop(digest, None)
    while len(kept) >= _MOST_KEPT:
        del kept[next(iter(kept))]
    kept[digest] = entry
