"""vLLM's `/metrics`, names and labels of vLLM 0.3x. Durations are simulated seconds.

Absent: what a simulated replica cannot have (speculative decoding, multi-modal caches, KV transfer, HTTP process details).
"""

from collections.abc import Sequence

from gwanmun.sim.engine import Step
from gwanmun.sim.exposition import Family, Histogram, Labels, labels, render
from gwanmun.sim.replica import Generation, Replica
from gwanmun.sim.spec import SimSpec

_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_BETWEEN_TOKENS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class VllmMetrics:
    """Observes one replica; `started_at` is Unix time."""

    def __init__(self, spec: SimSpec, replica: Replica, *, started_at: float) -> None:
        self._replica = replica
        self._lora = bool(spec.adapters)
        self._at = labels({"model_name": spec.models[0], "engine": "0"})
        self._families: list[Family | Histogram] = []
        profile = replica.profile

        self._running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        self._waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self._by_reason = self._gauge("num_requests_waiting_by_reason", "Number of waiting requests by reason.")
        self._usage = self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self._sleep = self._gauge("engine_sleep_state", "Engine sleep state; awake = 1 means the engine is not asleep.")
        self._queries = self._counter("prefix_cache_queries", "Prefix cache queries, in number of queried tokens.")
        self._hits = self._counter("prefix_cache_hits", "Prefix cache hits, in number of cached tokens.")
        self._preemptions = self._counter("num_preemptions", "Cumulative number of preemptions from the engine.")
        self._rejections = self._counter("admission_rejections", "Number of admission attempts rejected.")
        self._prompt = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self._cached = self._counter("prompt_tokens_cached", "Number of prompt tokens found in the prefix cache.")
        self._cached_by = self._counter("prompt_tokens_cached_by_source", "Cached prompt tokens by their source.")
        self._generated = self._counter("generation_tokens", "Number of generation tokens processed.")
        self._success = self._counter("request_success", "Count of successfully processed requests.")
        for reason in ("stop", "length", "abort"):
            self._success.add(0, (*self._at, ("finished_reason", reason)))

        lengths = _one_two_five(profile.max_model_tokens)
        self._prompt_sizes = self._histogram("request_prompt_tokens", "Number of prefill tokens processed.", lengths)
        self._output_sizes = self._histogram("request_generation_tokens", "Number of generation tokens processed.", lengths)
        self._step_tokens = self._histogram("iteration_tokens_total", "Number of tokens per engine_step.", _STEP_TOKENS)
        self._ttft = self._histogram("time_to_first_token_seconds", "Time to first token in seconds.", _FIRST_TOKEN)
        self._itl = self._histogram("inter_token_latency_seconds", "Inter-token latency in seconds.", _BETWEEN_TOKENS)
        self._tpot = self._histogram(
            "request_time_per_output_token_seconds", "Time per output token of a request in seconds.", _BETWEEN_TOKENS
        )
        self._e2e = self._histogram("e2e_request_latency_seconds", "End to end request latency in seconds.", _REQUEST)
        self._queue = self._histogram("request_queue_time_seconds", "Time spent in WAITING phase.", _REQUEST)
        self._inference = self._histogram("request_inference_time_seconds", "Time spent in RUNNING phase.", _REQUEST)
        self._prefill = self._histogram("request_prefill_time_seconds", "Time spent in PREFILL phase.", _REQUEST)
        self._decode = self._histogram("request_decode_time_seconds", "Time spent in DECODE phase.", _REQUEST)

        cache = self._gauge("cache_config_info", "Information of the LLMEngine CacheConfig")
        cache.set(
            1,
            labels(
                {
                    "block_size": str(profile.block_tokens),
                    "num_gpu_blocks": str(profile.blocks),
                    "kv_cache_size_tokens": str(profile.blocks * profile.block_tokens),
                    "kv_cache_max_concurrency": f"{profile.kv_tokens / profile.max_model_tokens:.2f}",
                    "enable_prefix_caching": str(profile.prefix_caching),
                    "cache_dtype": "auto",
                    "engine": "0",
                }
            ),
        )
        self._lora_slots = str(profile.lora_slots)
        start = Family("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.")
        start.set(started_at)
        self._families.append(start)
        replica.observers.append(self)

    def page(self, *, now: float) -> bytes:
        """The page a scraper reads; `now` is Unix time (the value of the LoRA series)."""
        load = self._replica.load()
        totals = self._replica.engine.totals
        self._running.set(load.running, self._at)
        self._waiting.set(load.waiting, self._at)
        self._by_reason.set(load.waiting_for_capacity, (*self._at, ("reason", "capacity")))
        self._by_reason.set(load.waiting_for_adapter, (*self._at, ("reason", "deferred")))
        self._usage.set(load.used_share, self._at)
        for state, value in (("awake", 1), ("weights_offloaded", 0), ("discard_all", 0)):
            self._sleep.set(value, (*self._at, ("sleep_state", state)))
        self._queries.set(totals.prefix_queries, self._at)
        self._hits.set(totals.prefix_hits, self._at)
        self._preemptions.set(0, self._at)
        self._rejections.set(0, self._at)
        self._prompt.set(totals.prompt_tokens, self._at)
        self._cached.set(totals.prefix_hits, self._at)
        self._cached_by.set(totals.prefix_hits, (*self._at, ("source", "device")))
        self._generated.set(totals.output_tokens, self._at)
        self._success.set(totals.cancelled, (*self._at, ("finished_reason", "abort")))
        families = list(self._families)
        if self._lora:
            families.append(self._lora_family(load.running_adapters, load.waiting_adapters, now))
        return render(families)

    # Observer

    def step(self, step: Step) -> None:
        self._step_tokens.observe(step.prefill_tokens + step.decode_tokens, self._at)

    def first_token(self, generation: Generation) -> None:
        assert generation.first_token_at is not None
        self._ttft.observe(generation.first_token_at - generation.submitted_at, self._at)

    def next_token(self, gap: float) -> None:
        self._itl.observe(gap, self._at)

    def finished(self, generation: Generation) -> None:
        assert generation.finished_at is not None
        first = generation.first_token_at if generation.first_token_at is not None else generation.finished_at
        self._e2e.observe(generation.finished_at - generation.submitted_at, self._at)
        self._queue.observe(generation.queue_seconds, self._at)
        self._inference.observe(generation.finished_at - generation.admitted_at, self._at)
        self._prefill.observe(first - generation.admitted_at, self._at)
        self._decode.observe(generation.finished_at - first, self._at)
        self._prompt_sizes.observe(generation.request.prompt_tokens, self._at)
        self._output_sizes.observe(generation.produced, self._at)
        if generation.produced > 1:
            self._tpot.observe((generation.finished_at - first) / (generation.produced - 1), self._at)

    def answered(self, finish_reasons: Sequence[str]) -> None:
        """These sequences were told to their client to the end."""
        for reason in finish_reasons:
            self._success.add(1, (*self._at, ("finished_reason", reason)))

    # Construction

    def _lora_family(self, running: Sequence[str], waiting: Sequence[str], now: float) -> Family:
        """One series per state, its value the time: a reader takes the newest. Only the newest is kept here."""
        family = Family("vllm:lora_requests_info", "gauge", "Running stats on lora requests.")
        at: Labels = labels(
            {
                "max_lora": self._lora_slots,
                "running_lora_adapters": ",".join(running),
                "waiting_lora_adapters": ",".join(waiting),
            }
        )
        family.set(now, at)
        return family

    def _gauge(self, name: str, text: str) -> Family:
        return self._kept(Family("vllm:" + name, "gauge", text))

    def _counter(self, name: str, text: str) -> Family:
        return self._kept(Family(f"vllm:{name}_total", "counter", text))

    def _kept(self, family: Family) -> Family:
        self._families.append(family)
        return family

    def _histogram(self, name: str, text: str, bounds: Sequence[float]) -> Histogram:
        histogram = Histogram("vllm:" + name, "Histogram: " + text, bounds)
        histogram.show(self._at)
        self._families.append(histogram)
        return histogram


def _one_two_five(most: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50, ... up to `most`."""
    bounds: list[float] = []
    power = 1
    while power <= most:
        bounds += [step * power for step in (1, 2, 5) if step * power <= most]
        power *= 10
    return tuple(bounds)
