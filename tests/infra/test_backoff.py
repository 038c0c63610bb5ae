"""Waiting between starts: short at first, longer while it does not help, forgotten after a good minute."""

from hypothesis import given
from hypothesis import strategies as st

from gwanmun.infra.backoff import Failures


def test_it_doubles_up_to_half_a_minute() -> None:
    failures, delays = Failures(), []
    for _ in range(12):
        failures = failures.after(lived=0.1)
        delays.append(failures.delay(lambda: 0.0))
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-2:] == [30.0, 30.0]


def test_a_good_minute_is_a_new_beginning() -> None:
    assert Failures(9).after(lived=60.0) == Failures(1)


def test_only_a_loop_has_to_prove_itself() -> None:
    assert Failures(2).trusted_after == 0.0
    assert Failures(3).trusted_after == 60.0


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_it_is_never_nothing_and_never_long(count: int, drawn: float) -> None:
    assert 0.05 <= Failures(count).delay(lambda: drawn) <= 30.0
