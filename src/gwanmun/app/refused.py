"""Streams of proxies, or of others, that the xDS port turned away: counted for metrics, and told rarely enough for a log."""

from collections.abc import Callable
from typing import Final

import structlog

from gwanmun.xds_server import Cause, Peer

_TOLD_AGAIN_S: Final = 60.0
_TOLD_ELSEWHERE: Final = (Cause.OTHER_ACCOUNT, Cause.NOT_SERVED)
"""By whoever knows the account and the Gateway."""

log = structlog.get_logger()


class Refused:
    """Is a `TurnedAway`. Whoever is turned away tries again at once: of each cause there is one line a minute, with how often
    it was since the last. Reasons never have a token in them."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.counts = dict.fromkeys(Cause, 0)
        self._told = dict.fromkeys(Cause, 0)
        self._again: dict[Cause, float] = {}
        self._clock = clock

    def __call__(self, peer: Peer, cause: Cause, reason: str) -> None:
        self.counts[cause] += 1
        now = self._clock()
        if cause in _TOLD_ELSEWHERE or now < self._again.get(cause, now):
            return
        times, self._told[cause] = self.counts[cause] - self._told[cause], self.counts[cause]
        self._again[cause] = now + _TOLD_AGAIN_S
        log.warning("proxy_refused", cause=str(cause), address=peer.address, problem=reason, times=times)
