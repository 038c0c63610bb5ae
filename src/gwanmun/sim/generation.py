"""From a decoded request to tokens in a replica: what vLLM's and TGI's APIs share.

The answer is a fixed sentence that says who answered and what was asked, so that a person and a test can see where a request
went. It is known in advance; only its timing is simulated.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import msgspec

from gwanmun.sim.engine import Request
from gwanmun.sim.profile import Profile
from gwanmun.sim.replica import Generation, Replica
from gwanmun.sim.tokens import block_hashes, tokenize

FinishReason = Literal["stop", "length"]

SSE_HEADERS = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))

_QUOTED_CHARACTERS = 200
_FILLER = tokenize(" The rest of this answer is filler, as long as you asked for.")


class ContentPart(msgspec.Struct):
    """One part of a message; only text counts."""

    type: str = "text"
    text: str | None = None


class Message(msgspec.Struct):
    """One message of a chat."""

    role: str
    content: str | list[ContentPart] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the replica is going to say."""

    tokens: tuple[str, ...]
    finish_reason: FinishReason
    stopped_by: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.tokens)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an answer may or must be, in tokens, and what ends it early."""

    most: int
    least: int = 0
    stop: tuple[str, ...] = ()


def chat_prompt(messages: Sequence[Message]) -> str:
    """The text that the model would see. A longer conversation begins with exactly the text of a shorter one and its answer."""
    turns = [f"<|{message.role}|>{message.text()}<|end|>" for message in messages]
    return "".join(turns) + "<|assistant|>"


def last_user_text(messages: Sequence[Message]) -> str:
    """What the user said last."""
    return next((message.text() for message in reversed(messages) if message.role == "user"), "")


def answer_to(*, name: str, model: str, said: str, limits: Limits) -> Answer:
    """The fixed sentence, cut at `most`, filled up to `least`, ended before the first stop text."""
    text = f"Hello from {name} (model {model})."
    if said:
        text += f' You said: "{said[:_QUOTED_CHARACTERS]}".'
    found = [(position, stop) for stop in limits.stop if stop and (position := text.find(stop)) >= 0]
    if found and limits.least == 0:
        position, stop = min(found)
        tokens = tokenize(text[:position])
        if len(tokens) <= limits.most:
            # An answer that stops at once still costs the step that found it out.
            return Answer(tuple(tokens) or ("",), "stop", stop)
        text = text[:position]
    tokens = tokenize(text)
    if len(tokens) < limits.least:
        missing = limits.least - len(tokens)
        tokens += (_FILLER * (missing // len(_FILLER) + 1))[:missing]
    if len(tokens) > limits.most:
        return Answer(tuple(tokens[: limits.most]), "length")
    return Answer(tuple(tokens), "length" if len(tokens) == limits.most == limits.least else "stop")


def count_tokens(profile: Profile, text: str) -> int:
    """Tokens of a text, at least 1. Where nothing is cached a cheap estimate will do: four bytes a token."""
    return max(1, len(tokenize(text)) if profile.prefix_caching else len(text) // 4)


def request_for(profile: Profile, *, prompt: str, answer: Answer | None, adapter: str | None, salt: str) -> Request:
    """The engine's view of a prompt and the answer to come; `answer` None computes the prompt only."""
    said = answer.tokens if answer is not None else ()
    if not profile.prefix_caching:
        return Request(count_tokens(profile, prompt), len(said), adapter=adapter)
    tokens = tokenize(prompt) or [""]
    hashes = block_hashes([*tokens, *said], block_tokens=profile.block_tokens, salt=f"{adapter or ''}/{salt}")
    return Request(len(tokens), len(said), hashes, adapter)


@asynccontextmanager
async def generating(replica: Replica, requests: Sequence[Request]) -> AsyncIterator[list[Generation]]:
    """Run requests side by side; whatever is unfinished at the end is cancelled, as when a client leaves."""
    started = [replica.submit(request) for request in requests]
    try:
        yield [generation for _, generation in started]
    finally:
        for number, _ in started:
            replica.cancel(number)


def sse(value: object) -> bytes:
    """One server-sent event with a JSON payload."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


SSE_DONE = b"data: [DONE]\n\n"
