"""Workloads: seeded, in order, and with the sharing they promise."""

import random
from collections import Counter
from itertools import islice, pairwise
from statistics import mean, median

from gwanmun.sim.tokens import tokenize
from gwanmun.sim.workload import (
    MultiTurn,
    Segment,
    SharedPrefix,
    Unshared,
    multi_turn,
    segment_text,
    shared_prefix,
    unshared,
)


def test_shared_prefixes_are_shared_by_group() -> None:
    options = SharedPrefix(rate=10.0, groups=8, prefix_tokens=500, skew=1.1)
    work = list(islice(shared_prefix(options, random.Random(1).random), 800))
    groups = Counter(request.messages[0].content for request in work)
    assert len(groups) == 8
    counts = [count for _, count in groups.most_common()]
    assert counts[0] > 3 * counts[-1]
    assert len({request.messages[1].content.key for request in work}) == 800
    assert 70 < work[-1].at < 90
    assert 200 < mean(request.output_tokens for request in work) < 300


def test_a_conversation_grows_by_what_was_said() -> None:
    work = list(islice(multi_turn(MultiTurn(), random.Random(2).random), 400))
    assert [request.at for request in work] == sorted(request.at for request in work)
    by_session: dict[int, list[int]] = {}
    for earlier, later in pairwise(work):
        assert earlier.at <= later.at
    for position, request in enumerate(work):
        by_session.setdefault(request.session, []).append(position)
    longest = max(by_session.values(), key=len)
    assert len(longest) > 2
    for before, after in pairwise(longest):
        size = len(work[before].messages)
        assert work[after].messages[:size] == work[before].messages
        assert work[after].messages[size].content.tokens == work[before].output_tokens
    assert len({request.messages[0].content for request in work}) == 4


def test_unshared_chat_has_the_lengths_of_the_trace() -> None:
    work = list(islice(unshared(Unshared(), random.Random(3).random), 2000))
    assert 900 < median(request.prompt_tokens for request in work) < 1150
    assert 110 < median(request.output_tokens for request in work) < 150
    assert len({request.messages[0].content for request in work}) == 2000


def test_same_seed_same_work() -> None:
    draws = [random.Random(4).random, random.Random(4).random]
    one, two = (list(islice(multi_turn(MultiTurn(), draw), 50)) for draw in draws)
    assert one == two


def test_a_segment_is_as_long_as_it_says() -> None:
    text = segment_text(Segment(12345, 300))
    assert len(tokenize(text)) == 300
    assert text == segment_text(Segment(12345, 300))
    assert text != segment_text(Segment(12346, 300))
