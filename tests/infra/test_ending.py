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


async def test_an_answer_that_does_not_come_is_asked_for_again() -> None:
    said = Said(2, None, None, 1, None, 0, 99)
    assert await drain(said, timedelta(seconds=10)) == 0
    assert next(said.numbers) == 99


async def test_nobody_is_waited_for_where_nobody_answers() -> None:
    said = Said(2, None, None, None, 99)
    assert await drain(said, timedelta(seconds=10)) == 0
    assert next(said.numbers) == 99


async def test_what_is_left_in_the_end_is_counted() -> None:
    assert await drain(Said(*[3] * 1000), timedelta(milliseconds=120)) == 3
