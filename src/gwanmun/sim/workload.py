"""Seeded workloads: requests with arrival times, prompts made of segments that can be shared, and answer lengths.

Pure: `draw` (uniform in [0, 1)) is an argument; times are seconds from the start. A segment stands for the same text wherever
it occurs, so prefixes are shared without the text being built; `segment_text` builds it when a real server is to see it.
Closed loops are absent: a conversation's next turn comes at a time fixed in advance, from a nominal answering speed.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

Draw = Callable[[], float]

_NOMINAL_TOKEN_SECONDS = 0.01
_WORDS = 10_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text that is `tokens` long. Equal segments are equal text."""

    key: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a prompt."""

    role: str
    content: Segment


@dataclass(frozen=True, slots=True)
class WorkRequest:
    """One request. The answer of an earlier turn of its session is part of `messages` like any other message."""

    at: float
    session: int
    messages: tuple[Turn, ...]
    output_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the contents, without what a chat template adds."""
        return sum(turn.content.tokens for turn in self.messages)


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Groups of users that share a long system prompt. The defaults are llm-d's business-to-business example."""

    rate: float = 26.0
    """Requests per second."""
    groups: int = 150
    prefix_tokens: int = 6000
    question_mean: float = 1200.0
    question_deviation: float = 240.0
    output_mean: float = 250.0
    skew: float = 0.0
    """Exponent of a Zipf law over the groups; 0: all alike."""


@dataclass(frozen=True, slots=True)
class MultiTurn:
    """Conversations that grow. Lengths are log-normal (mu, sigma of the logarithm)."""

    sessions_per_second: float = 2.0
    extra_turns_mean: float = 5.0
    system_prompts: int = 4
    system_tokens: int = 1024
    user: tuple[float, float] = (4.8, 1.0)
    output: tuple[float, float] = (5.2, 0.8)
    think: tuple[float, float] = (3.0, 0.8)
    """Seconds between an answer's end and the next question."""


@dataclass(frozen=True, slots=True)
class Unshared:
    """Chat without anything in common. The defaults fit p50 and p90 of the Azure 2023 conversation trace."""

    rate: float = 5.5
    prompt: tuple[float, float] = (6.93, 0.76)
    output: tuple[float, float] = (4.86, 0.93)


def shared_prefix(options: SharedPrefix, draw: Draw) -> Iterator[WorkRequest]:
    """Endless; Poisson arrivals. Each request: its group's prefix as system prompt, then a question of its own."""
    shares = _cumulative([1 / rank**options.skew for rank in range(1, options.groups + 1)])
    at = 0.0
    session = 0
    while True:
        at += _exponential(draw, 1 / options.rate)
        session += 1
        group = _index(shares, draw())
        question = max(1, round(_normal(draw, options.question_mean, options.question_deviation)))
        messages = (
            Turn("system", Segment(_key(1, group), options.prefix_tokens)),
            Turn("user", Segment(_key(2, session), question)),
        )
        yield WorkRequest(at, session, messages, max(1, round(_exponential(draw, options.output_mean))))


def multi_turn(options: MultiTurn, draw: Draw) -> Iterator[WorkRequest]:
    """Endless, in order of time: the turns of all conversations, each with everything said before it."""
    pending: list[tuple[float, int, int, list[WorkRequest]]] = []
    session = 0
    begins = _exponential(draw, 1 / options.sessions_per_second)
    while True:
        while not pending or begins <= pending[0][0]:
            turns = _conversation(options, draw, session=session, at=begins)
            heapq.heappush(pending, (begins, session, 0, turns))
            session += 1
            begins += _exponential(draw, 1 / options.sessions_per_second)
        _, number, position, turns = heapq.heappop(pending)
        yield turns[position]
        if position + 1 < len(turns):
            heapq.heappush(pending, (turns[position + 1].at, number, position + 1, turns))


def unshared(options: Unshared, draw: Draw) -> Iterator[WorkRequest]:
    """Endless; Poisson arrivals; no two prompts begin alike."""
    at = 0.0
    session = 0
    while True:
        at += _exponential(draw, 1 / options.rate)
        session += 1
        message = Turn("user", Segment(_key(3, session), _length(draw, options.prompt)))
        yield WorkRequest(at, session, (message,), _length(draw, options.output))


def segment_text(segment: Segment) -> str:
    """The text of a segment: as many tokens, by `tokens.tokenize`, as it says."""
    state = segment.key
    words: list[str] = []
    for _ in range(segment.tokens):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        words.append(f" {(state >> 33) % _WORDS:04d}")
    return "".join(words)


def _conversation(options: MultiTurn, draw: Draw, *, session: int, at: float) -> list[WorkRequest]:
    system = Segment(_key(4, int(draw() * options.system_prompts)), options.system_tokens)
    messages: tuple[Turn, ...] = (Turn("system", system),)
    turns: list[WorkRequest] = []
    for number in range(1 + int(_exponential(draw, options.extra_turns_mean))):
        question = Segment(_key(5, session, number), _length(draw, options.user))
        messages = (*messages, Turn("user", question))
        output = _length(draw, options.output)
        turns.append(WorkRequest(at, session, messages, output))
        messages = (*messages, Turn("assistant", Segment(_key(6, session, number), output)))
        at += output * _NOMINAL_TOKEN_SECONDS + _log_normal(draw, options.think)
    return turns


def _key(kind: int, *numbers: int) -> int:
    """Different for different arguments that are below 2**24."""
    key = kind
    for number in numbers:
        key = key * 2**24 + number
    return key


def _cumulative(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    reached = 0.0
    shares: list[float] = []
    for weight in weights:
        reached += weight / total
        shares.append(reached)
    return shares


def _index(shares: Sequence[float], chance: float) -> int:
    return next((index for index, share in enumerate(shares) if chance < share), len(shares) - 1)


def _exponential(draw: Draw, mean: float) -> float:
    return -mean * math.log(1 - draw())


def _normal(draw: Draw, mean: float, deviation: float) -> float:
    # inv_cdf is not defined at 0, which `draw` may return.
    return NormalDist(mean, deviation).inv_cdf(max(draw(), 1e-12))


def _log_normal(draw: Draw, parameters: tuple[float, float]) -> float:
    return math.exp(_normal(draw, *parameters))


def _length(draw: Draw, parameters: tuple[float, float]) -> int:
    return max(1, round(_log_normal(draw, parameters)))
