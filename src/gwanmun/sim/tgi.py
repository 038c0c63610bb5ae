"""TGI's HTTP API over a replica: generate, generate_stream, both on `/`, its OpenAI routes, info, health, tokens, metrics.

Shapes are those of TGI 3.3. Kept on purpose: any model name is accepted; an error on a streaming route is status 200 and an
error event, as in the original. Absent: best_of above 1, grammars, top tokens, images.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from gwanmun.sim import exposition
from gwanmun.sim.generation import (
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
)
from gwanmun.sim.http import Exchange
from gwanmun.sim.replica import Generation, Replica
from gwanmun.sim.spec import SimSpec
from gwanmun.sim.tgi_metrics import TgiMetrics
from gwanmun.sim.tokens import token_id, tokenize

VERSION = "3.3.7"

_DEFAULT_NEW_TOKENS = 100
_SEED = 42
_Body = TypeVar("_Body", bound=msgspec.Struct)


class ApiError(Exception):
    """A request that TGI answers with an error. `kind` is TGI's error_type."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    @property
    def body(self) -> dict[str, str]:
        return {"error": str(self), "error_type": self.kind}


class _Parameters(msgspec.Struct, kw_only=True):
    max_new_tokens: int | None = None
    stop: list[str] = []
    details: bool = False
    decoder_input_details: bool = False
    return_full_text: bool = False
    best_of: int | None = None


class _GenerateBody(msgspec.Struct, kw_only=True):
    inputs: str
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)
    stream: bool = False


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _OpenAIBody(msgspec.Struct, kw_only=True):
    model: str | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None


class _ChatBody(_OpenAIBody, kw_only=True):
    messages: list[Message]


class _CompletionBody(_OpenAIBody, kw_only=True):
    prompt: str | list[str]


class _TokenizeBody(msgspec.Struct):
    inputs: str


@dataclass(frozen=True, slots=True)
class _Job:
    """One prompt and its answer."""

    prompt: str
    answer: Answer


class TgiApi:
    """The routes of one server. `created` gives the Unix time that answers are stamped with."""

    def __init__(self, spec: SimSpec, replica: Replica, *, created: Callable[[], float]) -> None:
        self._spec = spec
        self._replica = replica
        self._profile = replica.profile
        self._created = created
        self._in_flight = 0
        self._model = spec.models[0]
        self._metrics = TgiMetrics(spec, replica, started_at=created())
        self._work: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
            ("POST", "/"): self._either,
            ("POST", "/generate"): self._generate,
            ("POST", "/generate_stream"): self._generate_stream,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
        }
        self._routes: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
            **self._work,
            ("GET", "/info"): self._info,
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("GET", "/v1/models"): self._models,
            ("POST", "/tokenize"): self._tokenize,
            ("GET", "/metrics"): self._metrics_page,
        }

    def is_model_work(self, path: str) -> bool:
        return ("POST", path) in self._work

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        route = self._routes.get((exchange.method, exchange.path))
        if route is None:
            known = any(path == exchange.path for _, path in self._routes)
            await exchange.respond(405 if known else 404, b"")
            return
        try:
            await route(exchange)
        except ApiError as error:
            self._metrics.failed(error.kind)
            await exchange.respond_json(error.status, error.body)

    async def fail(self, exchange: Exchange, status: int, message: str, headers: list[tuple[str, str]]) -> None:
        """Answer with an error that was ordered, not earned."""
        kind = "overloaded" if status == 429 else "generation" if status >= 500 else "validation"
        await exchange.respond_json(status, {"error": message, "error_type": kind}, headers)

    # TGI's own routes

    async def _either(self, exchange: Exchange) -> None:
        body = _decoded(exchange, _GenerateBody)
        if body.stream:
            await self._stream_own(exchange, body)
        else:
            await self._answer_own(exchange, body, in_list=True)

    async def _generate(self, exchange: Exchange) -> None:
        await self._answer_own(exchange, _decoded(exchange, _GenerateBody), in_list=False)

    async def _generate_stream(self, exchange: Exchange) -> None:
        await self._stream_own(exchange, _decoded(exchange, _GenerateBody))

    async def _answer_own(self, exchange: Exchange, body: _GenerateBody, *, in_list: bool) -> None:
        self._metrics.received()
        job = self._job_of(body)
        async with self._running([job]) as (generation,):
            await generation.finished()
        details = _details(job, generation) if body.parameters.details or body.parameters.decoder_input_details else None
        text = (job.prompt if body.parameters.return_full_text else "") + job.answer.text
        result = {"generated_text": text} if details is None else {"generated_text": text, "details": details}
        headers = [*_compute_headers(job.prompt), *_timing_headers(generation)]
        await exchange.respond_json(200, [result] if in_list else result, headers)

    async def _stream_own(self, exchange: Exchange, body: _GenerateBody) -> None:
        self._metrics.received()
        async with self._streaming(exchange, body.inputs):
            job = self._job_of(body)
            async with self._running([job]) as (generation,):
                async for index in generation.tokens():
                    last = index == len(job.answer.tokens) - 1
                    text = (job.prompt if body.parameters.return_full_text else "") + job.answer.text
                    event = {
                        "index": index + 1,
                        "token": _token(job.answer.tokens[index]),
                        "generated_text": text if last else None,
                        "details": _stream_details(job, generation) if last and body.parameters.details else None,
                    }
                    await exchange.write(_event(event))

    def _job_of(self, body: _GenerateBody) -> _Job:
        if (body.parameters.best_of or 1) > 1:
            raise ApiError(422, "validation", "Input validation error: `best_of` > 1 is not supported by the simulator")
        return self._job(body.inputs, body.inputs, most=body.parameters.max_new_tokens, stop=body.parameters.stop)

    # OpenAI's routes

    async def _chat(self, exchange: Exchange) -> None:
        body = _decoded(exchange, _ChatBody)
        if not body.messages:
            raise ApiError(422, "validation", "Input validation error: `messages` cannot be empty")
        prompt = chat_prompt(body.messages)
        said = last_user_text(body.messages)
        await self._openai(exchange, body, [(prompt, said)], chat=True)

    async def _completions(self, exchange: Exchange) -> None:
        body = _decoded(exchange, _CompletionBody)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        await self._openai(exchange, body, [(prompt, prompt) for prompt in prompts], chat=False)

    async def _openai(self, exchange: Exchange, body: _OpenAIBody, prompts: list[tuple[str, str]], *, chat: bool) -> None:
        self._metrics.received()
        stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
        identity = {
            "id": "",
            "created": int(self._created()),
            "model": self._model,
            "system_fingerprint": f"{VERSION}-native",
        }
        if body.stream:
            async with self._streaming(exchange, prompts[0][0]):
                jobs = [self._job(prompt, said, most=body.max_tokens, stop=stop) for prompt, said in prompts]
                await self._stream_openai(exchange, body, identity, jobs, chat=chat)
            return
        jobs = [self._job(prompt, said, most=body.max_tokens, stop=stop) for prompt, said in prompts]
        async with self._running(jobs) as generations:
            for generation in generations:
                await generation.finished()
        choices = [
            {
                "index": index,
                **({"message": {"role": "assistant", "content": job.answer.text}} if chat else {"text": job.answer.text}),
                "logprobs": None,
                "finish_reason": job.answer.finish_reason,
            }
            for index, job in enumerate(jobs)
        ]
        kind = {"object": "chat.completion" if chat else "text_completion"}
        headers = [*_compute_headers(prompts[0][0]), *_timing_headers(generations[0])]
        answer = {**kind, **identity, "choices": choices, "usage": _usage(generations)}
        await exchange.respond_json(200, answer, headers)

    async def _stream_openai(
        self, exchange: Exchange, body: _OpenAIBody, identity: dict[str, Any], jobs: list[_Job], *, chat: bool
    ) -> None:
        chunk = {"object": "chat.completion.chunk" if chat else "text_completion", **identity}
        async with self._running(jobs) as generations:
            for number, (job, generation) in enumerate(zip(jobs, generations, strict=True)):
                async for index in generation.tokens():
                    text = job.answer.tokens[index]
                    last = index == len(job.answer.tokens) - 1
                    choice = {
                        "index": number,
                        **({"delta": {"role": "assistant", "content": text}} if chat else {"text": text}),
                        "logprobs": None,
                        "finish_reason": job.answer.finish_reason if last else None,
                    }
                    await exchange.write(_event({**chunk, "choices": [choice], "usage": None}))
            if body.stream_options is not None and body.stream_options.include_usage:
                await exchange.write(_event({**chunk, "choices": [], "usage": _usage(generations)}))
        await exchange.write(b"data: [DONE]\n\n")

    # The rest

    async def _info(self, exchange: Exchange) -> None:
        info = {
            "model_id": self._model,
            "model_sha": None,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": self._spec.max_concurrent,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": self._profile.max_model_tokens - 1,
            "max_total_tokens": self._profile.max_model_tokens,
            "validation_workers": 2,
            "max_client_batch_size": 4,
            "router": "text-generation-router",
            "version": VERSION,
            "sha": None,
            "docker_label": "native",
        }
        await exchange.respond_json(200, info)

    async def _health(self, exchange: Exchange) -> None:
        await exchange.respond(200, b"")

    async def _models(self, exchange: Exchange) -> None:
        card = {"id": self._model, "object": "model", "created": 0, "owned_by": self._model}
        await exchange.respond_json(200, {"object": "list", "data": [card]})

    async def _tokenize(self, exchange: Exchange) -> None:
        body = _decoded(exchange, _TokenizeBody)
        tokens: list[dict[str, Any]] = []
        start = 0
        for text in tokenize(body.inputs):
            tokens.append({"id": token_id(text), "text": text, "start": start, "stop": start + len(text)})
            start += len(text)
        await exchange.respond_json(200, tokens)

    async def _metrics_page(self, exchange: Exchange) -> None:
        await exchange.respond(200, self._metrics.page(), [("content-type", exposition.CONTENT_TYPE)])

    # What the routes share

    def _job(self, prompt: str, said: str, *, most: int | None, stop: list[str]) -> _Job:
        """What will be answered. Raises ApiError 422 for what TGI's validation refuses."""
        if not prompt:
            raise ApiError(422, "validation", "Input validation error: `inputs` cannot be empty")
        most = _DEFAULT_NEW_TOKENS if most is None else most
        if most < 1:
            raise ApiError(422, "validation", "Input validation error: `max_new_tokens` must be strictly positive")
        used = count_tokens(self._profile, prompt)
        longest = self._profile.max_model_tokens
        if used + most > longest:
            message = (
                f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {longest}. "
                f"Given: {used} `inputs` tokens and {most} `max_new_tokens`"
            )
            raise ApiError(422, "validation", message)
        limits = Limits(most=most, stop=tuple(stop))
        return _Job(prompt, answer_to(name=self._spec.name, model=self._model, said=said, limits=limits))

    @asynccontextmanager
    async def _running(self, jobs: list[_Job]) -> AsyncIterator[list[Generation]]:
        """Run jobs if there is room. Raises ApiError 429."""
        if self._in_flight + len(jobs) > self._spec.max_concurrent:
            raise ApiError(429, "overloaded", "Model is overloaded")
        requests = [request_for(self._profile, prompt=job.prompt, answer=job.answer, adapter=None, salt="") for job in jobs]
        self._in_flight += len(jobs)
        try:
            async with generating(self._replica, requests) as generations:
                yield generations
        finally:
            self._in_flight -= len(jobs)

    @asynccontextmanager
    async def _streaming(self, exchange: Exchange, prompt: str) -> AsyncIterator[None]:
        """An event stream that is already begun when its request is checked: errors become events."""
        headers = [*SSE_HEADERS, *_compute_headers(prompt), ("x-accel-buffering", "no")]
        await exchange.start(200, headers)
        try:
            yield
        except ApiError as error:
            self._metrics.failed(error.kind)
            await exchange.write(_event(error.body))
        await exchange.finish()


def _event(value: object) -> bytes:
    """Without the space after the colon, as TGI writes it and many readers do not expect."""
    return b"data:" + msgspec.json.encode(value) + b"\n\n"


def _decoded(exchange: Exchange, kind: type[_Body]) -> _Body:
    content_type = (exchange.header("content-type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(415, "validation", "Expected request with `Content-Type: application/json`")
    try:
        return msgspec.json.decode(exchange.body, type=kind)
    except msgspec.ValidationError as error:
        message = f"Failed to deserialize the JSON body into the target type: {error}"
        raise ApiError(422, "validation", message) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "validation", f"Failed to parse the request body as JSON: {error}") from error


def _token(text: str) -> dict[str, Any]:
    return {"id": token_id(text), "text": text, "logprob": -0.5, "special": False}


def _reason(answer: Answer) -> str:
    if answer.stopped_by is not None:
        return "stop_sequence"
    return "length" if answer.finish_reason == "length" else "eos_token"


def _stream_details(job: _Job, generation: Generation) -> dict[str, Any]:
    return {
        "finish_reason": _reason(job.answer),
        "generated_tokens": len(job.answer.tokens),
        "seed": _SEED,
        "input_length": generation.request.prompt_tokens,
    }


def _details(job: _Job, generation: Generation) -> dict[str, Any]:
    return {
        "finish_reason": _reason(job.answer),
        "generated_tokens": generation.produced,
        "seed": _SEED,
        "prefill": [],
        "tokens": [_token(text) for text in job.answer.tokens],
    }


def _usage(generations: list[Generation]) -> dict[str, int]:
    prompt = sum(generation.request.prompt_tokens for generation in generations)
    produced = sum(generation.produced for generation in generations)
    return {"prompt_tokens": prompt, "completion_tokens": produced, "total_tokens": prompt + produced}


def _compute_headers(prompt: str) -> list[tuple[str, str]]:
    return [("x-compute-type", "gpu+optimized"), ("x-compute-characters", str(len(prompt)))]


def _timing_headers(generation: Generation) -> list[tuple[str, str]]:
    """Milliseconds, cut to whole numbers like the original's."""
    assert generation.finished_at is not None
    total = generation.finished_at - generation.submitted_at
    inference = generation.finished_at - generation.admitted_at
    return [
        ("x-compute-time", f"{total:.6f}"),
        ("x-total-time", str(int(total * 1000))),
        ("x-validation-time", "0"),
        ("x-queue-time", str(int(generation.queue_seconds * 1000))),
        ("x-inference-time", str(int(inference * 1000))),
        ("x-time-per-token", str(int(inference * 1000 / max(1, generation.produced)))),
        ("x-prompt-tokens", str(generation.request.prompt_tokens)),
        ("x-generated-tokens", str(generation.produced)),
    ]
