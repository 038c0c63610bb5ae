"""How long is waited for requests that are under way when Envoy is slow to say how many there are."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from gwanmun.infra.admin import Admin, AdminError
from gwanmun.infra.ending import drain


class Said(Admin):
    """An admin interface that says this when it is asked how much is unfinished; None: it gives no answer."""

    def __init__(self, *numbers: int | None) -> None:
        super().__init__(Path("nowhere"))
        object.__setattr__(self, "numbers", iter(numbers))

    numbers: Iterator[int | None]

    async def fail_health_checks(self) -> None: ...

    async def drain_listeners(self) -> None: ...

    async def unfinished(self) -> int:
        number = next(self.numbers)
        if number is None:
            raise AdminError("no answer")
        return number


def runs() -> bool:
    return False


async def test_an_answer_that_does_not_come_is_asked_for_again() -> None:
    said = Said(2, None, None, 1, None, 0, 99)
    assert await drain(said, timedelta(seconds=10), gone=runs) == 0
    assert next(said.numbers) == 99


async def test_silence_ends_no_request_however_long_it_is() -> None:
    said = Said(2, *[None] * 12, 1, 0, 99)
    assert await drain(said, timedelta(seconds=10), gone=runs) == 0
    assert next(said.numbers) == 99


async def test_nobody_is_waited_for_where_the_process_is_gone() -> None:
    ended = iter([False, False, True])
    said = Said(2, None, 99)
    assert await drain(said, timedelta(seconds=10), gone=lambda: next(ended)) == 0
    assert next(said.numbers) == 99


async def test_what_is_left_in_the_end_is_counted() -> None:
    assert await drain(Said(*[3] * 1000), timedelta(milliseconds=120), gone=runs) == 3


async def test_what_was_known_last_counts_where_no_answer_came_since() -> None:
    assert await drain(Said(3, *[None] * 1000), timedelta(milliseconds=200), gone=runs) == 3
