"""How long to wait before Envoy is started again. Pure: time and chance are arguments."""

from collections.abc import Callable
from dataclasses import dataclass

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 30.0
_STABLE_SECONDS = 60.0
_LOOP = 3


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures in a row: those of processes that did not live for a minute."""

    count: int = 0

    def after(self, lived: float) -> "Failures":
        """One more, of a process that lived so many seconds."""
        return Failures(1 if lived >= _STABLE_SECONDS else self.count + 1)

    def delay(self, draw: Callable[[], float]) -> float:
        """Seconds to wait: short for the first, doubled for each further one up to half a minute, and spread by up to a
        half with `draw`, which gives numbers from 0 to 1."""
        doubled: float = _FIRST_SECONDS * 2 ** min(self.count - 1, 30)
        return min(_LONGEST_SECONDS, doubled) * (1 - draw() / 2)

    @property
    def trusted_after(self) -> float:
        """For how many seconds the next process has to serve before it is believed to be well."""
        return _STABLE_SECONDS if self.count >= _LOOP else 0.0
