"""A manifest file to documents: plain values that know their file and the line of each of their fields.

Documents are parsed one by one between `---` lines, so a broken one leaves the others alone. JSON is accepted too, and
`kind: List` is taken apart. What the values mean is not known here.
"""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gwanmun.api.problem import FieldPath
from gwanmun.api.yaml_events import MAX_DEPTH, YamlError, integer, read_lines, read_values

MAX_BYTES = 64 << 20
MAX_DOCUMENTS = 100_000
_LOCATED_LENGTH = 1 << 20
_COARSE_DEPTH = 2
"""In one document of more characters than that (a List of thousands) only its items are located: lines cost memory."""

_MARKER = re.compile(r"\n---(?=\s|\Z)")
"""At the start of a line, other than the first, this ends a document wherever it stands, even in a block of text (YAML 1.2,
c-forbidden)."""
_CONTENT = re.compile(r"^[^#%\s]", re.MULTILINE)


class _Chunk:
    """The text between two markers; `line` is how many lines of the file come before it.

    Its fields are located on first need: a file without problems never pays for that.
    """

    __slots__ = ("_documents", "line", "text")

    def __init__(self, text: str, line: int) -> None:
        self.text = text
        self.line = line
        self._documents: list[dict[FieldPath, int]] | None = None

    def line_of(self, index: int, path: FieldPath) -> int | None:
        """The line (from 1) of a field of one document, or of the nearest field around it; None for no document."""
        if self._documents is None:
            depth = MAX_DEPTH if len(self.text) <= _LOCATED_LENGTH else _COARSE_DEPTH
            self._documents = read_lines(self.text, depth)
        if index >= len(self._documents):
            return None
        lines = self._documents[index]
        found = (lines.get(path[:length]) for length in range(len(path), -1, -1))
        line = next((line for line in found if line is not None), None)
        return None if line is None else self.line + line + 1


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file. `line` (from 1) is where it begins."""

    value: dict[str, Any]
    source: str
    line: int
    chunk: _Chunk
    index: int
    base: FieldPath = ()

    def line_of(self, path: FieldPath) -> int:
        """The line (from 1) of a field, or of the nearest field around it that stands in the file."""
        return self.chunk.line_of(self.index, (*self.base, *path)) or self.line


@dataclass(frozen=True, slots=True)
class DocumentProblem:
    """A part of a file that is not a document. `line` counts from 1."""

    source: str
    line: int
    message: str


def decode_documents(data: bytes | str, source: str) -> list[Document | DocumentProblem]:
    """Every document of a file, and a problem for each that is none; never raises on any input."""
    return list(iter_documents(data, source))


def iter_documents(data: bytes | str, source: str) -> Iterator[Document | DocumentProblem]:
    """The same one at a time, for large files."""
    if len(data) > MAX_BYTES:
        yield DocumentProblem(source, 1, f"larger than {MAX_BYTES >> 20} MiB")
        return
    if isinstance(data, str):
        text = data
    else:
        try:
            text = data.decode(_encoding(data))
        except UnicodeDecodeError as error:
            yield DocumentProblem(source, data.count(b"\n", 0, error.start) + 1, "not UTF-8 text")
            return
    count = 0
    for chunk in _chunks(text.removeprefix("\ufeff")):
        for document in _documents(chunk, source):
            count += 1
            if count > MAX_DOCUMENTS:
                yield DocumentProblem(source, document.line, f"more than {MAX_DOCUMENTS} documents; the rest is ignored")
                return
            yield document


def _encoding(data: bytes) -> str:
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"


def _chunks(text: str) -> Iterator[_Chunk]:
    start = line = 0
    for end in [*(match.start() + 1 for match in _MARKER.finditer(text)), len(text)]:
        chunk = text[start:end]
        if _CONTENT.search(chunk, 3 if chunk.startswith("---") else 0) or chunk[3:].strip():
            yield _Chunk(chunk, line)
        line += chunk.count("\n")
        start = end


def _documents(chunk: _Chunk, source: str) -> Iterator[Document | DocumentProblem]:
    if not chunk.text.startswith("---") and not _CONTENT.search(chunk.text):
        return  # comments and %YAML directives before the first marker
    value = _json(chunk.text)
    if value is not None:
        yield from _expanded(Document(value, source, chunk.line_of(0, ()) or chunk.line + 1, chunk, 0))
        return
    try:
        for index, (line, value) in enumerate(read_values(chunk.text)):
            start = chunk.line + line + 1
            if isinstance(value, dict):
                yield from _expanded(Document(value, source, start, chunk, index))
            elif value is not None:
                yield DocumentProblem(source, start, f"a manifest is a mapping with apiVersion and kind, not {_sort(value)}")
    except YamlError as error:
        yield DocumentProblem(source, chunk.line + error.line + 1, error.message)


def _json(text: str) -> dict[str, Any] | None:
    """The object, where the text is JSON: faster than YAML, and JSON's \\ud83d\\ude00 escapes are no YAML."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_int=integer)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None  # YAML says what is wrong, and on which line
    return value if isinstance(value, dict) and _is_shallow(value) else None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError
    return value


def _refuse_constant(_: str) -> None:
    raise ValueError


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False


def _expanded(document: Document) -> Iterator[Document | DocumentProblem]:
    """The items of a List, or the document itself. A typed list (HTTPRouteList) says kind and apiVersion only once."""
    value = document.value
    kind, items = value.get("kind"), value.get("items")
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)):
        yield document
        return
    common = {} if kind == "List" else {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")}
    for index, item in enumerate(items):
        path = (*document.base, "items", index)
        line = document.chunk.line_of(document.index, path) or document.line
        if isinstance(item, dict):
            inner = Document({**common, **item}, document.source, line, document.chunk, document.index, path)
            yield from _expanded(inner)
        else:
            yield DocumentProblem(document.source, line, f"an item of a list is an object, not {_sort(item)}")


def _sort(value: Any) -> str:
    """What sort of value it is; never the value, which may be anything that someone left in the folder."""
    return "a list" if isinstance(value, list) else "a single value"
