"""Durations as the Gateway API writes them (GEP-2257): "10s", "1h30m", "1m30s500ms"."""

import re
from datetime import timedelta

EXAMPLES = 'a duration such as "100ms", "10s" or "1h30m"'
"""What is accepted, for messages."""

_DURATION = re.compile(r"(?:[0-9]{1,5}(?:h|m|s|ms)){1,4}", re.ASCII)
_PART = re.compile(r"([0-9]+)(ms|h|m|s)", re.ASCII)
_UNITS = {"h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds"}


def parse_duration(text: str) -> timedelta | None:
    """The duration, or None where the text is not one. No sign, no fraction, no bare number, as in GEP-2257."""
    if _DURATION.fullmatch(text) is None:
        return None
    return sum((timedelta(**{_UNITS[unit]: int(count)}) for count, unit in _PART.findall(text)), timedelta())
