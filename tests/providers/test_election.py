"""The loop of an election, on an API server that takes its time."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

from gwanmun.kube import ApiError, KubeClient
from gwanmun.kube.election import Election
from gwanmun.kube.lease import LeaseTimes


class Slow:
    """An API server that has one Lease and answers after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.lease: dict[str, Any] | None = None
        self.writes = 0

    async def get(self, _path: str) -> Any:
        await asyncio.sleep(self.seconds)
        if self.lease is None:
            raise ApiError(404, "NotFound", "no lease")
        return self.lease

    async def call(self, _method: str, _path: str, *, body: dict[str, Any]) -> bytes:
        await asyncio.sleep(self.seconds)
        body["metadata"]["resourceVersion"] = str(self.writes)
        self.lease = body
        self.writes += 1
        return b"{}"


async def test_answers_that_take_longer_than_the_time_between_renewals_are_waited_for() -> None:
    server, changes = Slow(0.15), list[bool]()
    election = Election(
        cast(KubeClient, server),
        namespace="system",
        name="lease",
        identity="us",
        changed=changes.append,
        clock=asyncio.get_running_loop().time,
        now=lambda: datetime.now(UTC),
        times=LeaseTimes(duration=2, renew_deadline=1.0, retry=0.1),
    )
    running = asyncio.create_task(election.run())
    async with asyncio.timeout(10):
        while server.writes < 5:  # noqa: ASYNC110  an API server tells nobody
            await asyncio.sleep(0.01)
    assert changes == [True]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert changes == [True, False]
