"""The output of the suite's binary (`go test -v`) as results per test, and as a table. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_OWNER = re.compile(r"=== (?:RUN|CONT|NAME|PAUSE)\s+TestConformance/([^/\s]+)")
_VERDICT = re.compile(r"\s*--- (PASS|FAIL|SKIP): TestConformance/(\S+) \(([0-9.]+)s\)")
_REASON = re.compile(r"^\s+(?:Error:|Messages:)\s+(.*\S)")
_LOGGED_ERROR = re.compile(r"^\s+\S+\.go:\d+: (.*\S)")


@dataclass
class Result:
    """One test of the suite: PASS, FAIL or SKIP (a feature that is not claimed), seconds, failed parts, why it failed."""

    name: str
    verdict: str = "UNFINISHED"
    seconds: float = 0.0
    failed_parts: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class Collector:
    """Takes the output line by line; `receive` returns a result when its test has just ended."""

    def __init__(self) -> None:
        self.results: dict[str, Result] = {}
        self._owner: Result | None = None
        self._last_logged = ""
        self._outside: list[str] = []
        self._setup_errors: list[str] = []

    def receive(self, line: str) -> Result | None:
        """One line of output, in order."""
        owner = _OWNER.match(line)
        if owner:
            self._owner = self.results.setdefault(owner[1], Result(owner[1]))
            return None
        verdict = _VERDICT.match(line)
        if verdict:
            return self._end(verdict)
        reason = _REASON.match(line)
        logged = _LOGGED_ERROR.match(line)
        if reason:
            self._note(reason[1])
        elif logged:
            self._last_logged = logged[1]
        elif self._owner is None and line.strip():
            self._outside.append(line.rstrip())
        return None

    def outside(self) -> list[str]:
        """Errors that belong to no test, or failing that the last lines: why the suite did not start, where it did not."""
        return self._setup_errors or self._outside[-15:]

    def _note(self, reason: str) -> None:
        if self._owner is None:
            self._setup_errors.append(reason)
        elif reason not in self._owner.reasons:
            self._owner.reasons.append(reason)

    def _end(self, verdict: re.Match[str]) -> Result | None:
        name, _, part = verdict[2].partition("/")
        result = self.results.setdefault(name, Result(name))
        if part:
            if verdict[1] == "FAIL":
                result.failed_parts.append(part)
            return None
        result.verdict, result.seconds = verdict[1], float(verdict[3])
        if result.verdict == "FAIL" and not result.reasons and self._last_logged:
            result.reasons.append(self._last_logged)
        return result


def table(results: Iterable[Result]) -> str:
    """A line per test, failures with their reasons first, and the totals. Skipped tests are only counted."""
    ordered = sorted(results, key=lambda result: (result.verdict == "PASS", result.name))
    lines = []
    for result in ordered:
        if result.verdict == "SKIP":
            continue
        lines.append(f"{result.verdict:<10} {result.seconds:7.1f} s  {result.name}")
        if result.verdict != "PASS":
            lines += [f"{'':22}part: {part.replace('_', ' ')}" for part in result.failed_parts]
            lines += [f"{'':22}{reason}" for reason in result.reasons[:3]]
    counts = {verdict: sum(r.verdict == verdict for r in ordered) for verdict in ("PASS", "FAIL", "UNFINISHED", "SKIP")}
    lines.append(", ".join(f"{count} {verdict.lower()}" for verdict, count in counts.items() if count or verdict == "PASS"))
    return "\n".join(lines)
