"""The pages of docs/ as tests read them: blocks of code, and the marks that say what a block is.

A mark is an HTML comment on the line before a block, so that readers do not see it:

- `<!-- from: examples/x/y.yaml -->`: the block is in that file word for word;
- `<!-- run -->`: a shell command that ends; `<!-- run: words -->`: its output has these words;
- `<!-- start: words -->`: a shell command that goes on, and is there when its output has these words;
- `<!-- python: words -->`: a program that ends, likewise.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"(?:<!-- (?P<mark>\w+)(?:: (?P<words>.*?))? -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """`mark` and `words` are those of the comment before it, empty where there is none."""

    text: str
    language: str
    mark: str
    words: str


def blocks(page: Path) -> Iterator[Block]:
    for found in _BLOCK.finditer(page.read_text()):
        yield Block(found["text"], found["language"], found["mark"] or "", found["words"] or "")


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def reference(name: str) -> str:
    return (DOCS / "reference" / name).read_text()
