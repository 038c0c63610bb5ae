"""TGI's `/metrics`: names of TGI 3.3. Durations are simulated seconds.

Two habits of the original are kept: counters carry no `_total`, and the batch gauges are refreshed by the decode loop, so a
replica in its first prefill looks idle.
"""

from collections.abc import Sequence

from gwanmun.sim.engine import Step
from gwanmun.sim.exposition import Family, Histogram, render
from gwanmun.sim.replica import Generation, Replica
from gwanmun.sim.spec import SimSpec

_DURATIONS = tuple(0.0001 * 1.5**power for power in range(1, 35))
_TOKENS = tuple(float(2**power) for power in range(18))
_PREFILL = (("method", "prefill"),)
_DECODE = (("method", "decode"),)


class TgiMetrics:
    """Observes one replica; `started_at` is Unix time."""

    def __init__(self, spec: SimSpec, replica: Replica, *, started_at: float) -> None:
        self._replica = replica
        self._families: list[Family | Histogram] = []
        self._queue_size = self._gauge("queue_size", "Current queue size")
        self._batch_size = self._gauge("batch_current_size", "Current batch size")
        self._batch_tokens = self._gauge("batch_current_max_tokens", "Maximum tokens for the current batch")
        self._batch_capacity = self._gauge("batch_max_total_tokens", "Maximum tokens of any batch")
        self._requests = self._counter("request_count", "Total number of requests")
        self._success = self._counter("request_success", "Number of successful requests")
        self._failure = self._counter("request_failure", "Number of failed requests")
        self._inferences = self._counter("batch_inference_count", "Inference calls per method")
        self._inferred = self._counter("batch_inference_success", "Successful inference calls per method")
        self._requests.set(0)
        self._success.set(0)
        self._failure.set(0, (("err", "overloaded"),))
        self._duration = self._histogram("request_duration", "Total time of a request", _DURATIONS)
        self._validation = self._histogram("request_validation_duration", "Time spent validating", _DURATIONS)
        self._queued = self._histogram("request_queue_duration", "Time spent in the queue", _DURATIONS)
        self._inference = self._histogram("request_inference_duration", "Time spent in inference", _DURATIONS)
        self._per_token = self._histogram(
            "request_mean_time_per_token_duration", "Mean time per token of a request", _DURATIONS
        )
        self._input = self._histogram("request_input_length", "Input tokens per request", _TOKENS)
        self._allowed = self._histogram("request_max_new_tokens", "Allowed new tokens per request", _TOKENS)
        self._generated = self._histogram("request_generated_tokens", "Generated tokens per request", _TOKENS)
        self._forward = self._histogram("batch_forward_duration", "Forward duration per method", _DURATIONS)
        self._batch = self._histogram("batch_inference_duration", "Batch inference duration per method", _DURATIONS)
        start = Family("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.")
        start.set(started_at)
        self._families.append(start)
        replica.observers.append(self)

    def page(self) -> bytes:
        """The page a scraper reads."""
        load = self._replica.load()
        self._queue_size.set(load.waiting)
        self._batch_size.set(load.decoding)
        self._batch_tokens.set(load.reserved_tokens if load.decoding else 0)
        self._batch_capacity.set(load.capacity_tokens)
        return render(self._families)

    def received(self) -> None:
        self._requests.add(1)

    def failed(self, kind: str) -> None:
        self._failure.add(1, (("err", kind),))

    # Observer

    def step(self, step: Step) -> None:
        at = _PREFILL if step.prefill_tokens else _DECODE
        for counter in (self._inferences, self._inferred):
            counter.add(1, at)
        for histogram in (self._forward, self._batch):
            histogram.observe(step.at - step.began, at)

    def first_token(self, generation: Generation) -> None:
        """TGI has no metric of its own for the first token."""

    def next_token(self, gap: float) -> None:
        """TGI only reports the mean per request."""

    def finished(self, generation: Generation) -> None:
        assert generation.finished_at is not None
        inference = generation.finished_at - generation.admitted_at
        self._success.add(1)
        self._duration.observe(generation.finished_at - generation.submitted_at)
        self._validation.observe(0.0)
        self._queued.observe(generation.queue_seconds)
        self._inference.observe(inference)
        self._per_token.observe(inference / max(1, generation.produced))
        self._input.observe(generation.request.prompt_tokens)
        self._allowed.observe(generation.request.output_tokens)
        self._generated.observe(generation.produced)

    def _gauge(self, name: str, text: str) -> Family:
        family = Family("tgi_" + name, "gauge", text)
        self._families.append(family)
        return family

    def _counter(self, name: str, text: str) -> Family:
        family = Family("tgi_" + name, "counter", text)
        self._families.append(family)
        return family

    def _histogram(self, name: str, text: str, bounds: Sequence[float]) -> Histogram:
        histogram = Histogram("tgi_" + name, text, bounds)
        self._families.append(histogram)
        return histogram
