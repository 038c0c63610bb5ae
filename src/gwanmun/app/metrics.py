"""Metrics of the controller. Series are bounded by the number of kinds, never by routes, Gateways or proxies."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gwanmun.app.applying import ApplyStats
from gwanmun.providers.kubernetes import WatchStats
from gwanmun.status.writer import WriterStats

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is looked up when somebody asks: name, help, and values by label (empty: none), counted or measured."""

    name: str
    help: str
    values: Callable[[], dict[str, float]]
    label: str = ""
    counted: bool = False


class ControllerMetrics:
    """Owns the registry. Counters that others keep are added as readings."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._readings = _Readings()
        self.registry.register(self._readings)
        self.resolve_seconds = Histogram(
            "gwanmun_resolve_seconds", "From a batch of changes to the model", buckets=_BUCKETS, registry=self.registry
        )
        self.publish_seconds = Histogram(
            "gwanmun_publish_seconds",
            "From a batch of changes to published resources",
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def add(self, *readings: Reading) -> None:
        """Tell of these too."""
        self._readings.all.extend(readings)


def watching(stats: Sequence[WatchStats]) -> Iterator[Reading]:
    """What is told of those who follow the API server."""
    yield Reading(
        "gwanmun_watch_restarts", "Watches begun again", lambda: {"": sum(one.restarts for one in stats)}, counted=True
    )
    yield Reading(
        "gwanmun_watch_relists", "Lists after a watch expired", lambda: {"": sum(one.relists for one in stats)}, counted=True
    )


def writing(statuses: WriterStats, fleets: ApplyStats) -> Iterator[Reading]:
    """What is told of those who write to it."""
    for name, meaning, value in (
        ("gwanmun_status_writes", "Statuses written", lambda: statuses.written),
        ("gwanmun_status_conflicts", "Status writes that came too late", lambda: statuses.conflicts),
        ("gwanmun_status_failures", "Status writes that failed", lambda: statuses.failed),
        ("gwanmun_fleet_applied", "Objects of fleets applied", lambda: fleets.applied),
        ("gwanmun_fleet_failures", "Objects of fleets that could not be applied", lambda: fleets.failed),
    ):
        yield Reading(name, meaning, _alone(value), counted=True)


def _alone(value: Callable[[], int]) -> Callable[[], dict[str, float]]:
    return lambda: {"": value()}


class _Readings(Collector):
    def __init__(self) -> None:
        self.all: list[Reading] = []

    def collect(self) -> Iterator[Metric]:
        for reading in self.all:
            family = CounterMetricFamily if reading.counted else GaugeMetricFamily
            metric = family(reading.name, reading.help, labels=[reading.label] if reading.label else [])
            for value, amount in reading.values().items():
                metric.add_metric([value] if reading.label else [], amount)
            yield metric
