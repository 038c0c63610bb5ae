"""Metrics of the controller. Series are bounded by the number of kinds, never by routes, Gateways or proxies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

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
        self.publications = Counter(
            "gwanmun_xds_publications", "Sets of resources that were published for a group of proxies", registry=self.registry
        )
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
