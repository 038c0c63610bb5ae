"""How results are said: a table, and goals with what was measured beside them."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """`met` is judged on the figure as measured, not as rounded for printing."""

    what: str
    wanted: str
    measured: str
    met: bool


def at_least(what: str, measured: float, wanted: float, unit: str = "") -> Goal:
    return Goal(what, f">= {wanted:g}{unit}", f"{measured:.3g}{unit}", measured >= wanted)


def at_most(what: str, measured: float, wanted: float, unit: str = "") -> Goal:
    return Goal(what, f"<= {wanted:g}{unit}", f"{measured:.3g}{unit}", measured <= wanted)


def middle(values: Iterable[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Lowest to highest."""
    return f"{min(values):.{digits}f}-{max(values):.{digits}f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, aligned for reading as text."""
    cells = [list(headings), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def goals(found: Iterable[Goal]) -> str:
    return table(
        ("goal", "wanted", "measured", ""),
        ((goal.what, goal.wanted, goal.measured, "met" if goal.met else "MISSED") for goal in found),
    )
