"""The machine behind a Lease: two candidates that see the same Lease, and clocks that do not agree."""

import re
from dataclasses import replace

from gwanmun.app.controller import lease_name
from gwanmun.kube.lease import Candidate, LeaseRecord, LeaseTimes, decode_lease, lease_spec

TIMES = LeaseTimes(duration=15, renew_deadline=10.0, retry=2.0)
WALL = "2026-01-01T00:00:00.000000Z"


def attempt(candidate: Candidate, lease: LeaseRecord | None, now: float) -> LeaseRecord | None:
    """One round against an API server that takes every write; the Lease after it."""
    record = candidate.look(lease, now=now, wall=f"wall {now}")
    if record is None:
        return lease
    candidate.written(record, asked_at=now)
    return record


def test_the_first_one_leads_and_the_other_waits() -> None:
    a, b = Candidate("a", TIMES), Candidate("b", TIMES)
    lease = attempt(a, None, 0.0)
    lease = attempt(b, lease, 0.1)
    assert lease is not None
    assert lease.holder == "a"
    assert a.leads(0.2)
    assert not b.leads(0.2)


def test_renewing_keeps_the_time_of_taking_over() -> None:
    a = Candidate("a", TIMES)
    first = attempt(a, None, 0.0)
    second = attempt(a, first, 2.0)
    assert first is not None
    assert second is not None
    assert (second.acquire_time, second.renew_time, second.transitions) == (first.acquire_time, "wall 2.0", 1)


def test_a_dead_leader_is_followed_when_the_lease_has_lapsed_and_not_before() -> None:
    a, b = Candidate("a", TIMES), Candidate("b", TIMES)
    lease = attempt(a, None, 0.0)
    for now in (1.0, 8.0, 15.9):
        assert attempt(b, lease, now) == lease
    lease = attempt(b, lease, 16.1)
    assert lease is not None
    assert (lease.holder, lease.transitions) == ("b", 2)


def test_the_lease_lapses_by_our_own_clock() -> None:
    b = Candidate("b", TIMES)
    ancient = LeaseRecord("a", 15, WALL, "1999-01-01T00:00:00.000000Z", 1)
    assert attempt(b, ancient, 1000.0) == ancient, "its time says nothing: clocks may disagree"
    assert attempt(b, replace(ancient, renew_time="moved"), 1014.0) is not None
    assert not b.leads(1020.0), "it was renewed in between"


def test_a_leader_that_cannot_renew_steps_down_before_another_may_lead() -> None:
    a, b = Candidate("a", TIMES), Candidate("b", TIMES)
    lease = attempt(a, None, 0.0)
    attempt(b, lease, 0.0)
    assert a.leads(9.9)
    assert not a.leads(10.0)
    assert attempt(b, lease, 14.9) == lease


def test_a_leader_that_was_overruled_stops_at_once() -> None:
    a = Candidate("a", TIMES)
    attempt(a, None, 0.0)
    attempt(a, LeaseRecord("b", 15, WALL, WALL, 2), 1.0)
    assert not a.leads(1.0)


def test_a_released_lease_is_free_at_once() -> None:
    a, b = Candidate("a", TIMES), Candidate("b", TIMES)
    attempt(a, None, 0.0)
    released = a.release(wall=WALL)
    assert released is not None
    assert released.holder == ""
    assert not a.leads(0.1)
    assert a.release(wall=WALL) is None, "what one does not have one cannot give up"
    taken = attempt(b, released, 0.2)
    assert taken is not None
    assert taken.holder == "b"


def test_a_record_survives_the_wire() -> None:
    record = LeaseRecord("a", 15, WALL, WALL, 3)
    assert decode_lease({"spec": lease_spec(record)}) == record
    assert decode_lease({}) == LeaseRecord()


def test_each_installation_has_a_lease_of_its_own() -> None:
    names = [
        lease_name(instance) for instance in ("gwanmun", "system.one", "system.two", "Mine & yours", "mine-yours", "a.", "")
    ]
    assert names[:3] == ["gwanmun-controller.gwanmun", "gwanmun-controller.system.one", "gwanmun-controller.system.two"]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) for name in names)


def test_an_attempt_may_take_so_long_that_a_slow_api_server_is_no_reason_to_step_down() -> None:
    a = Candidate("a", TIMES)
    assert a.patience(0.0) == 5.0
    attempt(a, None, 0.0)
    assert a.patience(2.0) == 5.0
    assert a.patience(7.0) == 3.0, "nobody else may have lapsed us by then"
    assert a.patience(12.0) == 5.0
    assert not a.leads(12.0)
