"""Proxies that prove who they are by a bearer token. Whom to ask about a token is the caller's business.

What was found out is kept for a short while, since a control plane that starts is asked about everyone at once. Tokens
themselves are not kept, only their digests. Deliberately absent: Kubernetes.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from gwanmun.xds_server.publisher import Peer
from gwanmun.xds_server.server import Metadata, Refusal

_MOST_KEPT: Final = 4096
_LONGEST_TOKEN: Final = 16 * 1024

Review = Callable[[str], Awaitable["Holder | Refusal"]]
"""Asks about a token. TimeoutError where nobody answers."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a token is. `names` are proven by it, most telling first."""

    names: tuple[str, ...]


class TokenIdentity:
    """Is an `Identify`: takes ``authorization: Bearer ...`` of a stream. `lifetime` is how many seconds an answer counts."""

    def __init__(self, review: Review, *, clock: Callable[[], float], lifetime: float = 10.0) -> None:
        self._review = review
        self._clock = clock
        self._lifetime = lifetime
        self._kept: dict[bytes, tuple[float, Holder]] = {}

    async def __call__(self, metadata: Metadata, peer: Peer) -> Peer | Refusal:
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return Refusal("no token: a proxy shows its service account token as authorization: Bearer", known=False)
        if len(token) > _LONGEST_TOKEN:
            return Refusal("the token is too long", known=False)
        digest = hashlib.sha256(token.encode()).digest()
        until, holder = self._kept.get(digest, (0.0, Holder(())))
        if until <= self._clock():
            found = await self._review(token)
            if isinstance(found, Refusal):
                return found  # not kept: what is refused now may be let in a moment later
            holder = found
            self._keep(digest, holder)
        return replace(peer, names=holder.names)

    def _keep(self, digest: bytes, holder: Holder) -> None:
        now = self._clock()
        if len(self._kept) >= _MOST_KEPT:
            self._kept = {key: entry for key, entry in self._kept.items() if entry[0] > now}
        self._kept[digest] = (now + self._lifetime, holder)
