"""An `Engine` on the event loop's clock: requests in, tokens out when their time comes, and gone when the client leaves."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from gwanmun.sim.engine import Engine, Finished, FirstToken, Load, Request, Step, Token
from gwanmun.sim.profile import Profile


class Generation:
    """One request in a replica. Times are simulated seconds since the replica started."""

    def __init__(self, request: Request, submitted_at: float) -> None:
        self.request = request
        self.submitted_at = submitted_at
        self.admitted_at = submitted_at
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.finished_at: float | None = None
        self.cached_tokens = 0
        self.produced = 0
        self._ready: deque[int] = deque()
        self._changed = asyncio.Event()

    async def tokens(self) -> AsyncIterator[int]:
        """The index of each token when it is produced."""
        while True:
            while self._ready:
                yield self._ready.popleft()
            if self.finished_at is not None:
                return
            self._changed.clear()
            await self._changed.wait()

    async def finished(self) -> None:
        """Until the last token."""
        while self.finished_at is None:
            self._changed.clear()
            await self._changed.wait()

    @property
    def queue_seconds(self) -> float:
        return self.admitted_at - self.submitted_at

    def push(self, index: int) -> None:
        self._ready.append(index)
        self.produced += 1
        self._changed.set()

    def end(self, at: float) -> None:
        self.finished_at = at
        self._changed.set()


class Observer(Protocol):
    """Sees what an engine's metrics are made of. Gaps are simulated seconds."""

    def step(self, step: Step) -> None: ...

    def first_token(self, generation: Generation) -> None: ...

    def next_token(self, gap: float) -> None: ...

    def finished(self, generation: Generation) -> None: ...


class Replica:
    """Owns one engine and its timer."""

    def __init__(self, profile: Profile, *, seed: int, speed: float) -> None:
        self.profile = profile
        self.engine = Engine(profile, random.Random(seed).random)  # noqa: S311 - a simulation, not a secret
        self.observers: list[Observer] = []
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._speed = speed
        self._generations: dict[int, Generation] = {}
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Simulated seconds since start."""
        return (self._loop.time() - self._started) * self._speed

    def load(self) -> Load:
        self._run(self.now())
        return self.engine.load()

    def submit(self, request: Request) -> tuple[int, Generation]:
        """Start one request that fits; pass the number to `cancel` when its client leaves."""
        now = self.now()
        self._run(now)
        number = self.engine.submit(request, now)
        generation = Generation(request, now)
        self._generations[number] = generation
        self._run(now)
        return number, generation

    def cancel(self, number: int) -> None:
        """Free what a request holds. Nothing happens when it has finished."""
        if self._generations.pop(number, None) is not None:
            now = self.now()
            self._run(now)
            self.engine.cancel(number, now)
            self._run(now)

    def close(self) -> None:
        """Stop the timer; nothing is produced any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self, now: float) -> None:
        for event in self.engine.advance(now):
            match event:
                case Step():
                    for observer in self.observers:
                        observer.step(event)
                case FirstToken():
                    self._first(event)
                case Token():
                    self._next(event)
                case Finished():
                    self._finish(event)
        self._set_timer()

    def _first(self, event: FirstToken) -> None:
        generation = self._generations.get(event.id)
        if generation is None:
            return
        generation.admitted_at = event.admitted_at
        generation.cached_tokens = event.cached_tokens
        generation.first_token_at = generation.last_token_at = event.at
        generation.push(0)
        for observer in self.observers:
            observer.first_token(generation)

    def _next(self, event: Token) -> None:
        generation = self._generations.get(event.id)
        if generation is None:
            return
        assert generation.last_token_at is not None
        for observer in self.observers:
            observer.next_token(event.at - generation.last_token_at)
        generation.last_token_at = event.at
        generation.push(event.index)

    def _finish(self, event: Finished) -> None:
        generation = self._generations.pop(event.id, None)
        if generation is None:
            return
        generation.admitted_at = event.admitted_at
        generation.cached_tokens = event.cached_tokens
        generation.end(event.at)
        for observer in self.observers:
            observer.finished(generation)

    def _set_timer(self) -> None:
        self.close()
        at = self.engine.next_event_at()
        if at is not None:
            self._timer = self._loop.call_at(self._started + at / self._speed, self._on_timer)

    def _on_timer(self) -> None:
        self._run(self.now())
