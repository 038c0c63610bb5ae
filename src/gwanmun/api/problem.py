"""What can be wrong with a manifest, as data: a field, what stands there, and what would be accepted.

Where in a file that is belongs to `yaml.Document.line_of`; this module knows neither files nor lines.
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

FieldPath = tuple[str | int, ...]
"""Keys and list indexes from the top of an object."""

Severity = Literal["error", "warning"]
"""An API server would refuse an object with an error; a warning leaves it in force."""

_SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with one field. `message` names the value (never that of a Secret) and what is accepted."""

    path: FieldPath
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{format_path(self.path)}: {self.message}" if self.path else self.message


def format_path(path: FieldPath) -> str:
    """The path as users write it: `spec.rules[2].name`, `metadata.labels["example.com/team"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.replace("-", "_").isidentifier():
            text += f".{step}" if text else step
        else:
            text += f'["{_shorten(step)}"]'
    return text


def show(value: Any) -> str:
    """A value for a message: short, in the notation of the manifest, containers by their kind only."""
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return f'"{_shorten(value)}"'
        case _:
            return _shorten(msgspec.json.encode(value).decode())


def _shorten(text: str) -> str:
    printable = "".join(character if character.isprintable() else "�" for character in text[: _SHOWN_LENGTH + 1])
    return printable if len(printable) <= _SHOWN_LENGTH else printable[: _SHOWN_LENGTH - 1] + "…"


def any_of(words: list[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
