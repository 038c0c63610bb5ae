"""Near endpoints take everything while they can, and others help where they cannot.

Which endpoint takes a request is a draw with weights: shares are held to bounds, never to a number.
"""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from harness import LOOPBACK
from modelling import bound, cluster_key, http, model, rule, with_backend
from proxied import Upstream, ask, proxy, upstreams

from free_ports import free_port
from gwanmun.ir import Backend, Endpoint, Forward, Model, Retry, WeightedTarget

KEY = cluster_key("x")
TO_NEAR = Forward((WeightedTarget(KEY, 1, prefers_near=True),))
NEAR, FAR = ("near-1", "near-2"), ("far-1", "far-2")


def served(found: dict[str, Upstream], forward: Forward = TO_NEAR, *, inference: bool = True) -> Model:
    """The servers of `found` in two zones, by name."""
    zones = {one.port: "near" if name.startswith("near") else "far" for name, one in found.items()}
    endpoints = [Endpoint(LOOPBACK, port, zone=zone) for port, zone in zones.items()]
    base = model(http([rule(forward, inference=inference)]))
    return with_backend(base, Backend(KEY, "http1", prefer="zone"), *endpoints)


async def answers(client: httpx.AsyncClient, number: int, *, at_a_time: int) -> Counter[str | int]:
    """Who has answered, or with which status if not 200, and how often; requests have bodies, as those to models have."""
    left = iter(range(number))
    found: Counter[str | int] = Counter()

    async def ask_on() -> None:
        for _ in left:
            answer = await ask(client, "/", "POST", content=b"x" * 1000)
            found[answer.by if answer.status == 200 else answer.status] += 1

    await asyncio.gather(*(ask_on() for _ in range(at_a_time)))
    return found


def share(found: Counter[str | int], names: tuple[str, ...]) -> float:
    return sum(found[name] for name in names) / found.total()


async def test_others_take_next_to_nothing_while_near_ones_can(tmp_path: Path) -> None:
    port = free_port()
    async with (
        upstreams(*NEAR, *FAR) as found,
        proxy(tmp_path, served(found), bound(80, port, zone="near"), port) as running,
        running.client() as client,
    ):
        got = await answers(client, 300, at_a_time=2)
        assert share(got, NEAR) >= 0.95, got


@pytest.mark.parametrize("far", [FAR, FAR[:1]])
async def test_others_help_where_near_ones_are_slow(tmp_path: Path, far: tuple[str, ...]) -> None:
    port = free_port()
    async with upstreams(*NEAR, *far) as found:
        for name in NEAR:
            found[name].seconds, found[name].seats = 0.1, asyncio.Semaphore(2)
        async with proxy(tmp_path, served(found), bound(80, port, zone="near"), port) as running, running.client() as client:
            got = await answers(client, 300, at_a_time=32)
            assert 0.05 <= share(got, far) <= 0.98, got
            assert share(got, NEAR + far) == 1, got


@pytest.mark.parametrize("status", [429, 503])
async def test_others_answer_what_near_ones_refuse(tmp_path: Path, status: int) -> None:
    port = free_port()
    async with upstreams(*NEAR, *FAR) as found:
        for name in NEAR:
            found[name].status = status
        async with proxy(tmp_path, served(found), bound(80, port, zone="near"), port) as running, running.client() as client:
            got = await answers(client, 300, at_a_time=8)
            assert share(got, FAR) == 1, got


@pytest.mark.parametrize("inference", [True, False])
async def test_others_answer_where_near_ones_are_gone(tmp_path: Path, inference: bool) -> None:
    port = free_port()
    async with upstreams(*FAR) as found:
        gone = {name: Upstream(name, free_port()) for name in NEAR}
        served_there = served({**found, **gone}, inference=inference)
        async with proxy(tmp_path, served_there, bound(80, port, zone="near"), port) as running, running.client() as client:
            got = await answers(client, 200, at_a_time=4)
            assert share(got, FAR) == 1, got


@pytest.mark.parametrize(
    ("forward", "inference"),
    [
        (TO_NEAR, False),  # of another server it is not known what its 429 means
        (Forward((*TO_NEAR.targets, WeightedTarget(cluster_key("other"), 1))), True),  # answers 500: it is not there
        (replace(TO_NEAR, retry=Retry(1, (500,))), True),
    ],
)
async def test_a_refusal_is_the_answer_where_nobody_said_otherwise(tmp_path: Path, forward: Forward, inference: bool) -> None:
    port = free_port()
    async with upstreams(*NEAR, *FAR) as found:
        for name in NEAR:
            found[name].status = 429
        there = served(found, forward, inference=inference)
        async with proxy(tmp_path, there, bound(80, port, zone="near"), port) as running, running.client() as client:
            got = await answers(client, 50, at_a_time=2)
            assert share(got, FAR) <= 0.2, got
