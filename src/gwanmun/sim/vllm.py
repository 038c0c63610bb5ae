"""vLLM's HTTP API over a replica: chat, completions, embeddings, models, tokens, health, version, load and metrics.

Shapes of bodies and errors are those of vLLM 0.3x. Absent: logprobs, tools, guided decoding, images, audio, beam search
(the fields are accepted and have no effect), scoring, and the profiling and sleep routes.
"""

import base64
import json
import math
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from gwanmun.sim import exposition
from gwanmun.sim.generation import (
    SSE_DONE,
    SSE_HEADERS,
    Answer,
    Limits,
    Message,
    answer_to,
    chat_prompt,
    count_tokens,
    generating,
    last_user_text,
    request_for,
    sse,
)
from gwanmun.sim.http import Exchange
from gwanmun.sim.replica import Generation, Replica
from gwanmun.sim.spec import SimSpec
from gwanmun.sim.tokens import token_id, token_text, tokenize
from gwanmun.sim.vllm_metrics import VllmMetrics

VERSION = "0.33.0"

_EMBEDDING_SIZE = 16
_DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's and vLLM's default for the legacy completions


_Body = TypeVar("_Body", bound=msgspec.Struct)


class ApiError(Exception):
    """A request that vLLM answers with an error."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class _Sampling(msgspec.Struct, kw_only=True):
    model: str | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    n: int = 1
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    stream: bool = False
    stream_options: _StreamOptions | None = None
    cache_salt: str = ""


class _ChatBody(_Sampling, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None


class _CompletionBody(_Sampling, kw_only=True):
    prompt: str | list[str | int | list[int]]
    echo: bool = False


class _EmbeddingBody(msgspec.Struct, kw_only=True):
    model: str | None = None
    input: str | list[str]
    dimensions: int = _EMBEDDING_SIZE
    encoding_format: str = "float"


class _TokenizeBody(msgspec.Struct, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None


class _DetokenizeBody(msgspec.Struct, kw_only=True):
    model: str | None = None
    tokens: list[int]


class VllmApi:
    """The routes of one server. `created` gives the Unix time that answers are stamped with."""

    def __init__(self, spec: SimSpec, replica: Replica, *, created: Callable[[], float]) -> None:
        self._spec = spec
        self._replica = replica
        self._profile = replica.profile
        self._created = created
        self._count = 0
        self._in_flight = 0
        self._metrics = VllmMetrics(spec, replica, started_at=created())
        self._work: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/v1/embeddings"): self._embeddings,
        }
        self._routes: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
            **self._work,
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._health,
        }
        if spec.engine == "vllm":
            self._routes |= {
                ("GET", "/ping"): self._health,
                ("GET", "/version"): self._version,
                ("GET", "/load"): self._server_load,
                ("GET", "/metrics"): self._metrics_page,
                ("POST", "/tokenize"): self._tokenize,
                ("POST", "/detokenize"): self._detokenize,
            }

    def is_model_work(self, path: str) -> bool:
        return ("POST", path) in self._work

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        try:
            route = self._routes.get((exchange.method, exchange.path))
            if route is None:
                known = any(path == exchange.path for _, path in self._routes)
                status, text = (405, "Method Not Allowed") if known else (404, "Not Found")
                raise ApiError(status, text.replace(" ", "") + "Error", text)
            self._in_flight += 1
            try:
                await route(exchange)
            finally:
                self._in_flight -= 1
        except ApiError as error:
            await exchange.respond_json(error.status, _error(error.status, str(error), error.kind, error.param))

    async def fail(self, exchange: Exchange, status: int, message: str, headers: list[tuple[str, str]]) -> None:
        """Answer with an error that was ordered, not earned."""
        kind = "RateLimitError" if status == 429 else "InternalServerError" if status >= 500 else "BadRequestError"
        await exchange.respond_json(status, _error(status, message, kind, None), headers)

    # Routes

    async def _chat(self, exchange: Exchange) -> None:
        body = _decoded(exchange, _ChatBody)
        if not body.messages:
            raise ApiError(400, "BadRequestError", "messages must not be empty", "messages")
        model, adapter = self._model(body.model)
        prompt = chat_prompt(body.messages)
        limits = self._limits(body, prompt, most=body.max_completion_tokens or body.max_tokens)
        answer = answer_to(name=self._spec.name, model=model, said=last_user_text(body.messages), limits=limits)
        identity = self._identity("chatcmpl", "chat.completion.chunk" if body.stream else "chat.completion", model)
        request = request_for(self._profile, prompt=prompt, answer=answer, adapter=adapter, salt=body.cache_salt)
        async with generating(self._replica, [request] * body.n) as generations:
            if body.stream:
                await _stream(exchange, body, identity, [answer] * body.n, generations, _chat_delta)
            else:
                choices = [
                    _choice(index, answer, message={"role": "assistant", "content": answer.text, "tool_calls": []})
                    for index in range(body.n)
                ]
                await self._complete(exchange, {**identity, "choices": choices}, generations, body.n)
        self._metrics.answered([answer.finish_reason] * body.n)

    async def _completions(self, exchange: Exchange) -> None:
        body = _decoded(exchange, _CompletionBody)
        model, adapter = self._model(body.model)
        prompts = _prompts(body.prompt)
        answers: list[Answer] = []
        requests = []
        for prompt in prompts:
            limits = self._limits(body, prompt, most=body.max_tokens or _DEFAULT_COMPLETION_TOKENS)
            answer = answer_to(name=self._spec.name, model=model, said=prompt, limits=limits)
            request = request_for(self._profile, prompt=prompt, answer=answer, adapter=adapter, salt=body.cache_salt)
            answers += [answer] * body.n
            requests += [request] * body.n
        identity = self._identity("cmpl", "text_completion", model)
        async with generating(self._replica, requests) as generations:
            if body.stream:
                await _stream(exchange, body, identity, answers, generations, _text_delta)
            else:
                choices = [
                    _choice(index, answer, text=(prompts[index // body.n] if body.echo else "") + answer.text)
                    for index, answer in enumerate(answers)
                ]
                await self._complete(exchange, {**identity, "choices": choices}, generations, body.n)
        self._metrics.answered([answer.finish_reason for answer in answers])

    async def _embeddings(self, exchange: Exchange) -> None:
        body = _decoded(exchange, _EmbeddingBody)
        model, adapter = self._model(body.model)
        if body.encoding_format not in ("float", "base64"):
            raise ApiError(400, "BadRequestError", f"encoding_format {body.encoding_format!r} is not supported")
        texts = [body.input] if isinstance(body.input, str) else body.input
        for text in texts:
            self._check_length(text, 0)
        requests = [request_for(self._profile, prompt=text, answer=None, adapter=adapter, salt="") for text in texts]
        async with generating(self._replica, requests) as generations:
            for generation in generations:
                await generation.finished()
        vectors = [embedding(text, body.dimensions) for text in texts]
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": vector if body.encoding_format == "float" else _base64_floats(vector),
            }
            for index, vector in enumerate(vectors)
        ]
        identity = self._identity("embd", "list", model)
        usage = {"prompt_tokens": sum(r.prompt_tokens for r in requests), "completion_tokens": 0}
        usage["total_tokens"] = usage["prompt_tokens"]
        await exchange.respond_json(200, {**identity, "data": data, "usage": usage})

    async def _models(self, exchange: Exchange) -> None:
        created = int(self._created())
        base = self._spec.models[0]
        cards = [(name, base, None) for name in self._spec.models] + [(name, name, base) for name in self._spec.adapters]
        data: list[dict[str, Any]] = [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "vllm",
                "root": root,
                "parent": parent,
                "max_model_len": self._profile.max_model_tokens if parent is None else None,
                "permission": [],
            }
            for name, root, parent in cards
        ]
        await exchange.respond_json(200, {"object": "list", "data": data})

    async def _health(self, exchange: Exchange) -> None:
        await exchange.respond(200, b"")

    async def _version(self, exchange: Exchange) -> None:
        await exchange.respond_json(200, {"version": VERSION})

    async def _server_load(self, exchange: Exchange) -> None:
        await exchange.respond_json(200, {"server_load": self._in_flight - 1})

    async def _metrics_page(self, exchange: Exchange) -> None:
        page = self._metrics.page(now=self._created())
        await exchange.respond(200, page, [("content-type", exposition.CONTENT_TYPE)])

    async def _tokenize(self, exchange: Exchange) -> None:
        body = _decoded(exchange, _TokenizeBody)
        self._model(body.model)
        if body.messages is None and body.prompt is None:
            raise ApiError(400, "BadRequestError", "either prompt or messages is required", "prompt")
        text = chat_prompt(body.messages) if body.messages is not None else body.prompt or ""
        tokens = [token_id(token) for token in tokenize(text)]
        answer = {"count": len(tokens), "max_model_len": self._profile.max_model_tokens, "tokens": tokens}
        await exchange.respond_json(200, {**answer, "token_strs": None})

    async def _detokenize(self, exchange: Exchange) -> None:
        body = _decoded(exchange, _DetokenizeBody)
        self._model(body.model)
        await exchange.respond_json(200, {"prompt": _detokenized(body.tokens)})

    # What the routes share

    def _model(self, name: str | None) -> tuple[str, str | None]:
        """The model that answers and its adapter. A request without a model gets the first, as in vLLM."""
        if name is None or name == "":
            return self._spec.models[0], None
        if name in self._spec.adapters:
            return name, name
        if name not in self._spec.models:
            raise ApiError(404, "NotFoundError", f"The model `{name}` does not exist.", "model")
        return name, None

    def _limits(self, body: _Sampling, prompt: str, *, most: int | None) -> Limits:
        if body.n < 1 or body.n > 128:
            raise ApiError(400, "BadRequestError", f"n must be between 1 and 128, got {body.n}.", "n")
        if most is not None and most < 1:
            raise ApiError(400, "BadRequestError", f"max_tokens must be at least 1, got {most}.", "max_tokens")
        room = self._check_length(prompt, most or 1)
        most = room if most is None else most
        if body.min_tokens > most:
            message = f"min_tokens must be less than or equal to max_tokens={most}, got {body.min_tokens}."
            raise ApiError(400, "BadRequestError", message, "min_tokens")
        stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
        # Without max_tokens a real model that ignores its end would fill its context; here it would only cost time.
        least = most if body.ignore_eos and (body.max_tokens or most < room) else body.min_tokens
        return Limits(most=most, least=least, stop=stop)

    def _check_length(self, prompt: str, output_tokens: int) -> int:
        """Tokens that are left for the answer."""
        longest = self._profile.max_model_tokens
        used = count_tokens(self._profile, prompt)
        if used + output_tokens > longest:
            message = (
                f"This model's maximum context length is {longest} tokens. However, you requested {output_tokens} output "
                f"tokens and your prompt contains {used} input tokens. Please reduce the length of the input prompt or "
                f"the number of requested output tokens."
            )
            raise ApiError(400, "BadRequestError", message, "input_tokens")
        return longest - used

    def _identity(self, prefix: str, kind: str, model: str) -> dict[str, Any]:
        self._count += 1
        number = f"{prefix}-{self._spec.name}-{self._count:08x}"
        return {"id": number, "object": kind, "created": int(self._created()), "model": model}

    async def _complete(self, exchange: Exchange, body: dict[str, Any], generations: list[Generation], n: int) -> None:
        """Wait for the last token, then send everything at once."""
        for generation in generations:
            await generation.finished()
        answer = {**body, "usage": _usage(generations, n), "kv_transfer_params": None}
        await exchange.respond_json(200, answer, self._orca(exchange))

    def _orca(self, exchange: Exchange) -> list[tuple[str, str]]:
        """The load report of vLLM: only when asked for, and never on streams."""
        wanted = (exchange.header("endpoint-load-metrics-format") or "").lower()
        load = self._replica.load()
        values = {"kv_cache_usage_perc": load.used_share, "num_requests_waiting": float(load.waiting)}
        if wanted == "json":
            return [("endpoint-load-metrics", "JSON " + json.dumps({"named_metrics": values}))]
        if wanted == "text":
            text = ", ".join(f"named_metrics.{name}={value}" for name, value in values.items())
            return [("endpoint-load-metrics", "TEXT " + text)]
        return []


def embedding(text: str, size: int) -> list[float]:
    """A unit vector that depends on the text only."""
    values = [zlib.crc32(f"{position}:{text}".encode("utf-8", "surrogatepass")) / 2**31 - 1 for position in range(size)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


async def _stream(
    exchange: Exchange,
    body: _Sampling,
    identity: dict[str, Any],
    answers: list[Answer],
    generations: list[Generation],
    delta: Callable[[str, bool], dict[str, Any]],
) -> None:
    """Send the answers one after the other, token by token. Real servers interleave `n` answers; order is not promised."""
    options = body.stream_options or _StreamOptions()
    await exchange.start(200, SSE_HEADERS)

    async def send(choices: list[dict[str, Any]], *, usage: bool) -> None:
        chunk = {**identity, "choices": choices}
        if usage:
            chunk["usage"] = _usage(generations, body.n)
        await exchange.write(sse(chunk))

    for index, (answer, generation) in enumerate(zip(answers, generations, strict=True)):
        if body_delta := delta("", True):
            await send([{"index": index, **body_delta, "logprobs": None, "finish_reason": None}], usage=False)
        async for position in generation.tokens():
            last = position == len(answer.tokens) - 1
            choice = {
                "index": index,
                **delta(answer.tokens[position], False),
                "logprobs": None,
                "finish_reason": answer.finish_reason if last else None,
                "stop_reason": answer.stopped_by if last else None,
            }
            await send([choice], usage=options.continuous_usage_stats)
    if options.include_usage:
        await send([], usage=True)
    await exchange.write(SSE_DONE)
    await exchange.finish()


def _chat_delta(text: str, opening: bool) -> dict[str, Any]:
    return {"delta": {"role": "assistant", "content": ""} if opening else {"content": text}}


def _text_delta(text: str, opening: bool) -> dict[str, Any]:
    return {} if opening else {"text": text}


def _choice(index: int, answer: Answer, **content: object) -> dict[str, Any]:
    return {
        "index": index,
        **content,
        "logprobs": None,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stopped_by,
    }


def _usage(generations: list[Generation], n: int) -> dict[str, Any]:
    """Every prompt counts once, however many answers it has."""
    prompt = sum(generation.request.prompt_tokens for generation in generations[::n])
    produced = sum(generation.produced for generation in generations)
    cached = sum(generation.cached_tokens for generation in generations[::n])
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + produced,
        "completion_tokens": produced,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _prompts(prompt: str | list[str | int | list[int]]) -> list[str]:
    """One prompt, several, or the same as token numbers."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise ApiError(400, "BadRequestError", "prompt must not be empty", "prompt")
    numbers = [entry for entry in prompt if isinstance(entry, int)]
    if len(numbers) == len(prompt):
        return [_detokenized(numbers)]
    if numbers:
        raise ApiError(400, "BadRequestError", "prompt must not mix token numbers and texts", "prompt")
    return [entry if isinstance(entry, str) else _detokenized(entry) for entry in prompt if not isinstance(entry, int)]


def _detokenized(tokens: list[int]) -> str:
    try:
        return "".join(token_text(token) for token in tokens)
    except ValueError as error:
        raise ApiError(400, "BadRequestError", str(error), "tokens") from error


def _base64_floats(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _decoded(exchange: Exchange, kind: type[_Body]) -> _Body:
    content_type = (exchange.header("content-type") or "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(400, "Bad Request", "Unsupported Media Type: Only 'application/json' is allowed")
    try:
        return msgspec.json.decode(exchange.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "Bad Request", str(error)) from error


def _error(status: int, message: str, kind: str, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}
