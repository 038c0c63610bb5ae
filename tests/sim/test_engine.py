"""The step model: what a replica must never do, and that its caches and queues show in time."""

import random
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gwanmun.sim.engine import Engine, Event, Finished, FirstToken, Request, Step, Token
from gwanmun.sim.profile import PROFILES, Profile, step_seconds
from gwanmun.sim.tokens import block_hashes, token_id, token_text, tokenize

H100 = replace(PROFILES["8b-h100"], jitter=0.0)
SMALL = Profile("small", overhead=0.001, per_token=0.0001, kv_tokens=512, seats=3, step_tokens=40, lora_slots=1)


def engine(profile: Profile = H100, seed: int = 0) -> Engine:
    return Engine(profile, random.Random(seed).random)


def run(replica: Engine, requests: Sequence[tuple[float, Request]]) -> list[Event]:
    """Submit each request at its time and run to the end."""
    events: list[Event] = []
    for at, request in sorted(requests, key=lambda pair: pair[0]):
        events += replica.advance(at)
        replica.submit(request, at)
    while (at_next := replica.next_event_at()) is not None:
        events += replica.advance(at_next)
    return events


def first_tokens(events: Sequence[Event]) -> list[FirstToken]:
    return [event for event in events if isinstance(event, FirstToken)]


def prompt(words: int, *, key: str = "a", output: int = 4) -> Request:
    tokens = [f" {key}{index}" for index in range(words)]
    return Request(words, output, block_hashes(tokens, block_tokens=16))


REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 0.2),
        st.builds(
            lambda group, words, output, adapter: replace(prompt(words, key=group, output=output), adapter=adapter),
            st.sampled_from("ab"),
            st.integers(1, 200),
            st.integers(0, 40),
            st.sampled_from([None, "x", "y"]),
        ),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60)
@given(requests=REQUESTS, seed=st.integers(0, 3), cancelled=st.sets(st.integers(1, 12), max_size=3))
def test_every_token_comes_once_in_order_and_within_capacity(
    requests: list[tuple[float, Request]], seed: int, cancelled: set[int]
) -> None:
    replica = Engine(replace(SMALL, jitter=0.1), random.Random(seed).random)
    events: list[Event] = []
    submitted: dict[int, tuple[float, Request]] = {}
    for at, request in sorted(requests, key=lambda pair: pair[0]):
        events += replica.advance(at)
        submitted[replica.submit(request, at)] = (at, request)
    now = max(at for at, _ in requests)
    for number in sorted(cancelled & submitted.keys()):
        replica.cancel(number, now)
    while (at_next := replica.next_event_at()) is not None:
        now = max(now, at_next)
        events += replica.advance(now)
        load = replica.load()
        assert load.used_tokens <= load.reserved_tokens <= load.capacity_tokens
        assert load.running <= SMALL.seats
        assert len(load.running_adapters) <= SMALL.lora_slots
    assert replica.load().running == replica.load().waiting == replica.load().reserved_tokens == 0

    times = [event.at for event in events]
    assert times == sorted(times)
    finished = {event.id for event in events if isinstance(event, Finished)}
    assert submitted.keys() - finished <= cancelled
    for number in finished:
        arrived, request = submitted[number]
        mine = [event for event in events if not isinstance(event, Step) and event.id == number]
        indexes = [0 if isinstance(e, FirstToken) else e.index for e in mine if isinstance(e, FirstToken | Token)]
        assert indexes == list(range(request.output_tokens))
        last = mine[-1]
        assert isinstance(last, Finished)
        uncached = request.prompt_tokens - last.cached_tokens
        steps = -(-uncached // SMALL.step_tokens)
        shortest = steps * SMALL.overhead + uncached * SMALL.per_token
        assert uncached >= 1
        assert last.admitted_at >= arrived
        assert mine[0].at - last.admitted_at >= shortest * 0.9 - 1e-9


@given(requests=REQUESTS)
@settings(max_examples=20)
def test_same_seed_same_events(requests: list[tuple[float, Request]]) -> None:
    profile = replace(SMALL, jitter=0.2)
    assert run(engine(profile, 7), requests) == run(engine(profile, 7), requests)


def test_prefill_takes_what_the_step_model_says() -> None:
    (first,) = first_tokens(run(engine(), [(0.0, prompt(1000))]))
    assert first.at == step_seconds(H100, [(1000, 0)], [])
    assert 0.025 < first.at < 0.035


def test_long_prompts_are_prefilled_in_chunks() -> None:
    events = run(engine(), [(0.0, prompt(20_000, output=1))])
    chunks = [event.prefill_tokens for event in events if isinstance(event, Step)]
    assert chunks == [8192, 8192, 20_000 - 2 * 8192]


def test_an_identical_prompt_comes_out_of_the_prefix_cache() -> None:
    replica = engine()
    first, second = first_tokens(run(replica, [(0.0, prompt(4000)), (1.0, prompt(4000))]))
    assert (first.cached_tokens, second.cached_tokens) == (0, 3984)
    assert first.at > 8 * (second.at - 1.0)
    assert replica.totals.prefix_hits == 3984


def test_least_recently_used_blocks_are_evicted_first() -> None:
    replica = engine(replace(H100, kv_tokens=1600))
    at = iter(range(10))
    hits = [
        first_tokens(run(replica, [(float(next(at)), prompt(640, key=key))]))[0].cached_tokens
        for key in ("a", "b", "a", "c", "a", "b")
    ]
    assert hits[2] == 624
    assert hits[4] == 624
    assert hits[5] < 624


def test_what_does_not_fit_waits_in_order() -> None:
    replica = engine(replace(H100, kv_tokens=1600))
    events = run(replica, [(0.0, prompt(900, key="a")), (0.0, prompt(900, key="b")), (0.0, prompt(10, key="c"))])
    one, two, three = first_tokens(events)
    assert (one.id, two.id, three.id) == (1, 2, 3)
    ended = next(event.at for event in events if isinstance(event, Finished))
    assert two.admitted_at == three.admitted_at == ended


def test_an_adapter_without_a_slot_lets_others_pass() -> None:
    replica = engine(replace(H100, lora_slots=1))
    requests = [(0.0, replace(prompt(50, key=name, output=20), adapter=name)) for name in ("x", "y")]
    events = run(replica, [*requests, (0.0, prompt(50, key="z"))])
    admitted = {event.id: event.admitted_at for event in first_tokens(events)}
    assert admitted[3] < admitted[2]
    load_time = first_tokens(events)[0].at
    assert load_time > H100.lora_load


def test_a_cancelled_request_frees_its_place() -> None:
    replica = engine(replace(H100, seats=1))
    one = replica.submit(prompt(100, output=10_000), 0.0)
    two = replica.submit(prompt(100, key="b"), 0.0)
    replica.advance(0.5)
    assert (replica.load().running, replica.load().waiting) == (1, 1)
    replica.cancel(one, 0.5)
    events = replica.advance(1.0)
    assert any(isinstance(event, Finished) and event.id == two for event in events)
    assert replica.totals.cancelled == 1


def test_instant_takes_no_time() -> None:
    replica = engine(PROFILES["instant"])
    replica.submit(Request(50_000, 30), 5.0)
    events = replica.advance(5.0)
    assert isinstance(events[-2], Finished)
    assert {event.at for event in events} == {5.0}


@given(st.text(max_size=200))
def test_tokens_are_reversible(text: str) -> None:
    tokens = tokenize(text)
    assert "".join(tokens) == text
    numbers = [token_id(token) for token in tokens]
    assert all(number < 2**53 for number in numbers)
    assert "".join(token_text(number) for number in numbers) == text


@given(st.text(max_size=100), st.text(max_size=100))
def test_the_tokens_of_a_text_begin_those_of_a_longer_one(text: str, more: str) -> None:
    tokens = tokenize(text)
    assert tokenize(text + more)[: len(tokens[:-1])] == tokens[:-1]
