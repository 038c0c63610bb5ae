"""Counters, gauges and histograms in Prometheus' text format.

Written by hand because the engines differ where `prometheus_client` leaves no choice: TGI's counters have no `_total`, and
several simulated replicas in one process need metrics, and a process start time, of their own.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

Labels = tuple[tuple[str, str], ...]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def labels(values: Mapping[str, str]) -> Labels:
    """Labels in the order given."""
    return tuple(values.items())


class Family:
    """All samples of one metric name. `kind` is `counter` or `gauge`."""

    def __init__(self, name: str, kind: str, text: str) -> None:
        self.name = name
        self._kind = kind
        self._text = text
        self._values: dict[Labels, float] = {}

    def set(self, value: float, at: Labels = ()) -> None:
        self._values[at] = value

    def add(self, value: float, at: Labels = ()) -> None:
        self._values[at] = self._values.get(at, 0.0) + value

    def render(self) -> list[str]:
        lines = _header(self.name, self._kind, self._text)
        lines += [f"{self.name}{_braces(at)} {_number(value)}" for at, value in self._values.items()]
        return lines


class Histogram:
    """A histogram; bucket bounds are inclusive upper bounds in the metric's unit."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name = name
        self._text = text
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def show(self, at: Labels = ()) -> None:
        """Make the series appear before its first observation."""
        self._counts.setdefault(at, [0] * (len(self._bounds) + 1))
        self._sums.setdefault(at, 0.0)

    def observe(self, value: float, at: Labels = ()) -> None:
        self.show(at)
        self._counts[at][bisect_left(self._bounds, value)] += 1
        self._sums[at] += value

    def render(self) -> list[str]:
        lines = _header(self.name, "histogram", self._text)
        for at, counts in self._counts.items():
            total = 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                total += count
                lines.append(f"{self.name}_bucket{_braces((('le', _number(bound)), *at))} {_number(total)}")
            lines.append(f"{self.name}_count{_braces(at)} {_number(total)}")
            lines.append(f"{self.name}_sum{_braces(at)} {_number(self._sums[at])}")
        return lines


def render(families: Iterable[Family | Histogram]) -> bytes:
    """The page that a scraper reads."""
    return ("\n".join(line for family in families for line in family.render()) + "\n").encode()


def _header(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _braces(at: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in at) + "}" if at else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(float(value))
