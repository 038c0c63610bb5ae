"""Seeded step model of one replica: queue, seats, chunked prefill, decode, KV cache, prefix cache, LoRA slots.

Pure: `now` (seconds on any monotonic scale) and `draw` (uniform in [0, 1)) are arguments. Work happens in steps, as in vLLM and
TGI: a step decodes one token for every request past its prefill and spends what is left of its token budget on prefill,
first come first served. A request is admitted when its prompt and its whole answer fit into the KV cache, so nothing is
ever preempted; real vLLM admits earlier and preempts, which only matters when the cache is nearly full.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gwanmun.sim.kvcache import BlockPool, Lease
from gwanmun.sim.profile import Profile, step_seconds


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to compute. `output_tokens` 0 means prefill only (embeddings)."""

    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    """Hashes of the full blocks of prompt and answer; empty: nothing is shared."""
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class FirstToken:
    id: int
    at: float
    admitted_at: float
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Token:
    """Token number `index` of the answer; the first (index 0) is `FirstToken`."""

    id: int
    at: float
    index: int


@dataclass(frozen=True, slots=True)
class Finished:
    id: int
    at: float
    admitted_at: float
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step ended."""

    at: float
    began: float
    prefill_tokens: int
    decode_tokens: int


Event = FirstToken | Token | Finished | Step


@dataclass(frozen=True, slots=True)
class Load:
    """What a scrape sees at one moment."""

    running: int
    decoding: int
    """Running requests that are past their prefill."""
    waiting_for_capacity: int
    waiting_for_adapter: int
    used_tokens: int
    reserved_tokens: int
    capacity_tokens: int
    running_adapters: tuple[str, ...]
    waiting_adapters: tuple[str, ...]

    @property
    def waiting(self) -> int:
        return self.waiting_for_capacity + self.waiting_for_adapter

    @property
    def used_share(self) -> float:
        return self.used_tokens / self.capacity_tokens


@dataclass(slots=True)
class Totals:
    """Counters since start; tokens."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cancelled: int = 0


@dataclass(slots=True)
class _Waiting:
    id: int
    request: Request
    arrived: float


@dataclass(slots=True)
class _Running:
    id: int
    request: Request
    admitted: float
    cached: int
    lease: Lease
    computed: int
    """Tokens whose keys and values are in the cache."""
    published: int
    """Blocks that have been offered to the prefix cache (or came from it)."""
    produced: int = 0
    cancelled: bool = False

    @property
    def in_prefill(self) -> bool:
        return self.computed < self.request.prompt_tokens


@dataclass(slots=True)
class _Plan:
    began: float
    ends: float
    prefills: list[tuple[_Running, int]] = field(default_factory=list)
    decodes: list[_Running] = field(default_factory=list)


class Engine:
    """One replica. `advance` must be called with times that never go back; `submit` and `cancel` likewise."""

    def __init__(self, profile: Profile, draw: Callable[[], float]) -> None:
        self.profile = profile
        self.totals = Totals()
        self._draw = draw
        self._pool = BlockPool(profile.blocks)
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[int, _Running] = {}
        self._resident: OrderedDict[str, None] = OrderedDict()
        self._plan: _Plan | None = None
        self._next_id = 0

    def fits(self, request: Request) -> bool:
        """Whether the replica could ever run this request."""
        return self._blocks_of(request) <= self._pool.capacity

    def submit(self, request: Request, now: float) -> int:
        """Queue a request that `fits`; the id names it in events."""
        assert request.prompt_tokens > 0
        assert self.fits(request)
        self._next_id += 1
        self._waiting.append(_Waiting(self._next_id, request, now))
        if self._plan is None:
            self._plan = self._planned(now)
        return self._next_id

    def cancel(self, id: int, now: float) -> None:
        """Forget a request (the client left); its seat and blocks are free from the next step on. Unknown ids are ignored:
        the request may have finished in the same instant."""
        running = self._running.pop(id, None)
        waiting = [entry for entry in self._waiting if entry.id == id] if running is None else []
        if running is not None:
            running.cancelled = True
            self._pool.release(running.lease)
        for entry in waiting:
            self._waiting.remove(entry)
        if running is not None or waiting:
            self.totals.cancelled += 1
        if self._plan is None:
            self._plan = self._planned(now)

    def advance(self, now: float) -> list[Event]:
        """Run every step that ends by `now`; its events in order of time."""
        events: list[Event] = []
        while self._plan is not None and self._plan.ends <= now:
            done = self._plan
            self._complete(done, events)
            start = done.ends
            if not self._running and self._waiting:
                start = max(start, self._waiting[0].arrived)
            self._plan = self._planned(start)
        return events

    def next_event_at(self) -> float | None:
        """When the step under way ends; None when idle."""
        return self._plan.ends if self._plan is not None else None

    def load(self) -> Load:
        """Gauges of this moment. KV use counts what is computed; `reserved_tokens` what is promised (as TGI counts)."""
        block = self.profile.block_tokens
        active = {run.request.adapter for run in self._running.values()} - {None}
        blocked = [w.request.adapter for w in self._waiting if self._lacks_slot(w.request.adapter)]
        private = sum(
            max(0, -(-run.computed // block) - len(run.lease.pinned)) for run in self._running.values() if run.computed
        )
        shared = self._pool.held - sum(run.lease.private for run in self._running.values())
        return Load(
            running=len(self._running),
            decoding=sum(1 for run in self._running.values() if not run.in_prefill),
            waiting_for_capacity=len(self._waiting) - len(blocked),
            waiting_for_adapter=len(blocked),
            used_tokens=min(self._pool.held, shared + private) * block,
            reserved_tokens=self._pool.held * block,
            capacity_tokens=self._pool.capacity * block,
            running_adapters=tuple(sorted(adapter for adapter in active if adapter is not None)),
            waiting_adapters=tuple(sorted({w.request.adapter for w in self._waiting if w.request.adapter is not None})),
        )

    def _blocks_of(self, request: Request) -> int:
        return -(-(request.prompt_tokens + request.output_tokens) // self.profile.block_tokens)

    def _lacks_slot(self, adapter: str | None) -> bool:
        if adapter is None:
            return False
        active = {run.request.adapter for run in self._running.values()} - {None}
        return adapter not in active and len(active) >= self.profile.lora_slots

    def _planned(self, start: float) -> _Plan | None:
        """The step that begins at `start`: decodes first, then prefills under way, then admissions. None when idle."""
        plan = _Plan(began=start, ends=start)
        plan.decodes = [run for run in self._running.values() if not run.in_prefill]
        budget = max(0, self.profile.step_tokens - len(plan.decodes))
        for run in self._running.values():
            if run.in_prefill and budget > 0:
                chunk = min(budget, run.request.prompt_tokens - run.computed)
                plan.prefills.append((run, chunk))
                budget -= chunk
        loading = 0.0
        while budget > 0 and (run_ := self._admitted(start)) is not None:
            run, load_time = run_
            loading += load_time
            chunk = min(budget, run.request.prompt_tokens - run.computed)
            plan.prefills.append((run, chunk))
            budget -= chunk
        if not plan.prefills and not plan.decodes:
            return None
        seconds = loading + step_seconds(
            self.profile,
            [(chunk, run.computed) for run, chunk in plan.prefills],
            [run.computed for run in plan.decodes],
        )
        plan.ends = start + seconds * (1 + self.profile.jitter * (2 * self._draw() - 1))
        return plan

    def _admitted(self, start: float) -> tuple[_Running, float] | None:
        """Move the first request that may run from the queue to the batch, with its adapter's loading time.

        A request that waits for blocks holds up those behind it; one that waits for an adapter slot does not (vLLM).
        """
        if len(self._running) >= self.profile.seats:
            return None
        for entry in self._waiting:
            if entry.arrived > start:
                return None
            if self._lacks_slot(entry.request.adapter):
                continue
            leased = self._leased(entry.request)
            if leased is None:
                return None
            hits, lease = leased
            self._waiting.remove(entry)
            cached = hits * self.profile.block_tokens
            run = _Running(entry.id, entry.request, start, cached, lease, computed=cached, published=hits)
            self._running[entry.id] = run
            self.totals.prefix_queries += entry.request.prompt_tokens
            self.totals.prefix_hits += cached
            return run, self._loading(entry.request.adapter)
        return None

    def _leased(self, request: Request) -> tuple[int, Lease] | None:
        # The last prompt token is always computed: its output is the first token of the answer.
        most = (request.prompt_tokens - 1) // self.profile.block_tokens
        hits = self._pool.matched(request.blocks[:most]) if self.profile.prefix_caching else 0
        lease = self._pool.lease(request.blocks[:hits], self._blocks_of(request) - hits)
        return None if lease is None else (hits, lease)

    def _loading(self, adapter: str | None) -> float:
        """Seconds to bring the adapter onto the accelerator; it stays until slots are needed."""
        if adapter is None:
            return 0.0
        known = adapter in self._resident
        self._resident[adapter] = None
        self._resident.move_to_end(adapter)
        if len(self._resident) > self.profile.lora_slots:
            self._resident.popitem(last=False)
        return 0.0 if known else self.profile.lora_load

    def _complete(self, plan: _Plan, events: list[Event]) -> None:
        prefilled = 0
        decoded = 0
        for run, chunk in plan.prefills:
            if not run.cancelled:
                prefilled += chunk
                self._extend(run, chunk)
                if not run.in_prefill:
                    self._prefilled(run, plan.ends, events)
        for run in plan.decodes:
            if not run.cancelled:
                decoded += 1
                self._extend(run, 1)
                events.append(Token(run.id, plan.ends, run.produced))
                self._produced(run, plan.ends, events)
        events.append(Step(plan.ends, plan.began, prefilled, decoded))

    def _prefilled(self, run: _Running, at: float, events: list[Event]) -> None:
        self.totals.prompt_tokens += run.request.prompt_tokens
        if run.request.output_tokens == 0:
            self._finish(run, at, events)
            return
        events.append(FirstToken(run.id, at, run.admitted, run.cached))
        self._produced(run, at, events)

    def _produced(self, run: _Running, at: float, events: list[Event]) -> None:
        run.produced += 1
        self.totals.output_tokens += 1
        if run.produced == run.request.output_tokens:
            self._finish(run, at, events)

    def _finish(self, run: _Running, at: float, events: list[Event]) -> None:
        del self._running[run.id]
        self._pool.release(run.lease)
        events.append(Finished(run.id, at, run.admitted, run.cached))

    def _extend(self, run: _Running, tokens: int) -> None:
        run.computed += tokens
        if not self.profile.prefix_caching:
            return
        full = min(run.computed // self.profile.block_tokens, len(run.request.blocks))
        for position in range(run.published, full):
            self._pool.publish(run.lease, run.request.blocks[position])
        run.published = max(run.published, full)
