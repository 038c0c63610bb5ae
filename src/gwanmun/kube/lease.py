"""Who leads: the machine behind a Lease. No await and no clock; times are arguments.

A lease that is not renewed lapses by our own clock, counted from when we saw its last renewal, so that clocks of different
machines need not agree. Whoever leads steps down before the others can count the lease as lapsed.
"""

from dataclasses import dataclass, replace
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """In seconds. `renew_deadline` after the last renewal the leader steps down; it must be shorter than `duration`."""

    duration: int = 15
    renew_deadline: float = 10.0
    retry: float = 2.0


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the Lease says. `holder` empty: nobody leads. Times are RFC 3339 text with microseconds."""

    holder: str = ""
    duration: int = 15
    acquire_time: str = ""
    renew_time: str = ""
    transitions: int = 0


NOBODY: Final = LeaseRecord()


class Candidate:
    """One controller's view of the Lease."""

    def __init__(self, identity: str, times: LeaseTimes) -> None:
        self.identity = identity
        self.times = times
        self._seen: LeaseRecord | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None

    def leads(self, now: float) -> bool:
        """Whether we lead at this moment."""
        return self._left(now) > 0

    def patience(self, now: float) -> float:
        """How many seconds an attempt (two answers of the API server) may take: as long as one that is lost leaves time for
        another, and not beyond the moment when we have to step down."""
        half = self.times.renew_deadline / 2
        return min(half, self._left(now) or half)

    def _left(self, now: float) -> float:
        """Seconds until we have to step down."""
        return 0.0 if self._renewed_at is None else max(0.0, self._renewed_at + self.times.renew_deadline - now)

    def look(self, found: LeaseRecord | None, *, now: float, wall: str) -> LeaseRecord | None:
        """What to write, given what the Lease says (None: there is none); None where somebody else leads."""
        found = found or NOBODY
        if found != self._seen:
            self._seen, self._seen_at = found, now
        if found.holder == self.identity:
            return replace(found, duration=self.times.duration, renew_time=wall)
        if found.holder and now - self._seen_at < found.duration:
            self._renewed_at = None
            return None
        return LeaseRecord(self.identity, self.times.duration, wall, wall, found.transitions + 1)

    def written(self, record: LeaseRecord, *, asked_at: float) -> None:
        """The Lease was written. We lead from when we asked: the answer may have taken long."""
        self._seen, self._seen_at, self._renewed_at = record, asked_at, asked_at

    def release(self, *, wall: str) -> LeaseRecord | None:
        """What to write so that the next one need not wait; None where we do not lead."""
        if self._renewed_at is None or self._seen is None:
            return None
        self._renewed_at = None
        return replace(self._seen, holder="", duration=1, renew_time=wall)


def decode_lease(lease: dict[str, Any]) -> LeaseRecord:
    """The record of a Lease object."""
    spec = lease.get("spec") or {}
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        duration=spec.get("leaseDurationSeconds") or 15,
        acquire_time=spec.get("acquireTime") or "",
        renew_time=spec.get("renewTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
    )


def lease_spec(record: LeaseRecord) -> dict[str, Any]:
    """The spec of a Lease object."""
    return {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": record.duration,
        "acquireTime": record.acquire_time,
        "renewTime": record.renew_time,
        "leaseTransitions": record.transitions,
    }
