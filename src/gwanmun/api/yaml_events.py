"""One YAML stream to plain values, from libyaml's events rather than its node tree.

PyYAML's own loaders build the tree by recursion in C, and 20 KB of "[" ends the process. This machine keeps its own
stack, so it can also refuse what a manifest must not do: duplicate keys, aliases that expand without bound, numbers
that JSON lacks. Scalars mean what they mean to kubectl: YAML 1.1 words and octal numbers, no timestamps, no base 60.
"""

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from gwanmun.api.problem import FieldPath, show

MAX_DEPTH = 100
"""Nesting of containers. Kubernetes objects stay below 30."""
MAX_ALIASED_NODES = 10_000
MAX_ALIASED_CHARACTERS = 4 << 20
"""What all aliases of one document may stand for together: the guard against "billion laughs"."""

_MERGE = object()
_NO_KEY = object()
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NUMBER_STARTS = frozenset("0123456789+-.")
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|0|[1-9][0-9_]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 300
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
_TAG = "tag:yaml.org,2002:"
_TAGGED_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


class YamlError(Exception):
    """The stream is not a manifest from here on. `line` counts from 0 within the text that was given."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def read_values(text: str) -> Iterator[tuple[int, Any]]:
    """Every document of the text as (line of its first node, value). Raises YamlError where it cannot go on."""
    try:
        yield from _values(_parser(text))
    except yaml.YAMLError as error:
        raise _refused(error, text) from None


def _values(parser: Any) -> Iterator[tuple[int, Any]]:
    root = _Sequence(None, 0, 0)
    stack: list[_Sequence | _Mapping] = [root]
    budget = _Anchors()
    nodes = characters = line = 0
    while True:
        event = parser.get_event()
        kind = type(event)
        if kind is ScalarEvent:
            value = text = event.value
            nodes += 1
            characters += len(text)
            if event.tag is not None or (not event.style and (text in _WORDS or text[0] in _NUMBER_STARTS)):
                value = _scalar(event)  # anything else is text, as nearly all of a manifest is
            stack[-1].add(value, event)
            if event.anchor is not None:
                budget.anchors[event.anchor] = (value, 1, len(text))
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            if len(stack) > MAX_DEPTH:
                raise YamlError(event.start_mark.line, f"nested more than {MAX_DEPTH} levels deep")
            _check_container_tag(event)
            if len(stack) == 1:
                line = event.start_mark.line
            opened = _Mapping if kind is MappingStartEvent else _Sequence
            stack.append(opened(event.anchor, nodes, characters))
            nodes += 1
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            closed = stack.pop()
            value = closed.finish()
            stack[-1].add(value, event)
            if closed.anchor is not None:
                budget.anchors[closed.anchor] = (value, nodes - closed.nodes, characters - closed.characters)
        elif kind is AliasEvent:
            value, more_nodes, more_characters = budget.take(event)
            nodes += more_nodes
            characters += more_characters
            stack[-1].add(value, event)
        elif kind is DocumentStartEvent:
            line, budget = event.start_mark.line, _Anchors()
        elif kind is DocumentEndEvent:
            yield line, root.items.pop()
        elif kind is StreamEndEvent:
            return


class _Sequence:
    """A list being read; `nodes` and `characters` are the counts at its start, by which an anchor is weighed."""

    __slots__ = ("anchor", "characters", "items", "nodes")

    def __init__(self, anchor: str | None, nodes: int, characters: int) -> None:
        self.items: list[Any] = []
        self.anchor, self.nodes, self.characters = anchor, nodes, characters

    def add(self, value: Any, event: Any) -> None:
        self.items.append(value)

    def finish(self) -> list[Any]:
        return self.items


class _Mapping:
    """A mapping being read: keys and values by turns."""

    __slots__ = ("anchor", "characters", "key", "merges", "nodes", "value")

    def __init__(self, anchor: str | None, nodes: int, characters: int) -> None:
        self.value: dict[str, Any] = {}
        self.key: Any = _NO_KEY
        self.merges: list[dict[str, Any]] = []
        self.anchor, self.nodes, self.characters = anchor, nodes, characters

    def add(self, value: Any, event: Any) -> None:
        if self.key is _NO_KEY:
            self.key = key = value if type(value) is str and value != "<<" else _key(value, event)
            if key in self.value:
                raise YamlError(event.start_mark.line, f"the key {show(key)} is there twice in one mapping")
            return
        if self.key is _MERGE:
            self.merges += _merged(value, event)
        else:
            self.value[self.key] = value
        self.key = _NO_KEY

    def finish(self) -> dict[str, Any]:
        for merged in self.merges:
            for name, inherited in merged.items():
                self.value.setdefault(name, inherited)
        return self.value


class _Anchors:
    """The anchors of one document, and how much its aliases may still stand for."""

    def __init__(self) -> None:
        self.anchors: dict[str, tuple[Any, int, int]] = {}
        self._nodes = MAX_ALIASED_NODES
        self._characters = MAX_ALIASED_CHARACTERS

    def take(self, event: Any) -> tuple[Any, int, int]:
        """The value of an alias with its weight. Raises YamlError for an unknown one and when all is spent."""
        line = event.start_mark.line
        if event.anchor not in self.anchors:
            raise YamlError(line, "this alias stands for nothing that ends before it; text that begins with * needs quotes")
        value, nodes, characters = self.anchors[event.anchor]
        self._nodes -= nodes
        self._characters -= characters
        if self._nodes < 0 or self._characters < 0:
            limits = f"{MAX_ALIASED_NODES} nodes or {MAX_ALIASED_CHARACTERS >> 20} MiB"
            raise YamlError(line, f"aliases expand to more than {limits}")
        return value, nodes, characters


def read_lines(text: str, depth: int) -> list[dict[FieldPath, int]]:
    """For every document, the line (from 0) of each field down to a depth, by path; ends without fuss at an error."""
    documents: list[dict[FieldPath, int]] = []
    stack: list[tuple[FieldPath, Any, bool]] = []
    path: FieldPath = ()
    step: Any = _NO_KEY
    in_mapping = False
    try:
        parser = _parser(text)
        while type(event := parser.get_event()) is not StreamEndEvent:
            kind = type(event)
            if kind is DocumentStartEvent:
                documents.append({})
                stack, path, step, in_mapping = [], (), _NO_KEY, False
                continue
            if kind is MappingEndEvent or kind is SequenceEndEvent:
                path, step, in_mapping = stack.pop()
            elif kind in (ScalarEvent, AliasEvent, MappingStartEvent, SequenceStartEvent):
                line = event.start_mark.line
                if in_mapping and step is _NO_KEY:
                    step = event.value if kind is ScalarEvent else ""
                    if len(path) < depth:
                        documents[-1].setdefault((*path, step), line)
                    continue
                here = (*path, step) if step is not _NO_KEY else path
                if len(here) <= depth:
                    documents[-1].setdefault(here, line)
                if kind is MappingStartEvent or kind is SequenceStartEvent:
                    if len(stack) > MAX_DEPTH:
                        break
                    stack.append((path, step, in_mapping))
                    path, in_mapping = here, kind is MappingStartEvent
                    step = _NO_KEY if in_mapping else 0
                    continue
            else:
                continue
            step = _NO_KEY if in_mapping or not stack else step + 1
    except (YamlError, yaml.YAMLError):
        return documents
    return documents


def _parser(text: str) -> Any:
    try:
        return CParser(text)
    except UnicodeEncodeError as error:
        raise YamlError(text.count("\n", 0, error.start), "half of a surrogate pair is no character") from None


def _refused(error: yaml.YAMLError, text: str) -> YamlError:
    if isinstance(error, yaml.reader.ReaderError):
        before = text.encode(errors="replace")[: max(error.position, 0)]
        return YamlError(before.count(b"\n"), f"{error.reason}: no manifest holds such a character")
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark is not None else 0
        return YamlError(line, _explained(error, text, line))
    return YamlError(0, f"not YAML: {error}")


def _explained(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    context = error.context
    if context and error.context_mark is not None and (above := line - error.context_mark.line) > 0:
        context += f" that begins {above} line{'s' if above > 1 else ''} above"  # the bracket or quote that is still open
    message = ", ".join(part for part in (context, error.problem) if part)
    lines = text.splitlines()
    at_fault = lines[line] if line < len(lines) else ""
    if "\t" in at_fault[: len(at_fault) - len(at_fault.lstrip())]:
        return f"{message}; YAML is indented with spaces, never with tabs"
    if error.problem == "mapping values are not allowed in this context":
        return f"{message}; is the line above indented alike, and is a value with a colon in quotes?"
    return message


def _scalar(event: Any) -> Any:
    text: str = event.value
    if event.tag is not None:
        return text if event.tag == "!" else _tagged(event, text)
    if event.style:
        return text  # in quotes, or a block
    return _plain(text, event.start_mark.line)


def _plain(text: str, line: int) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _NOT_FINITE.fullmatch(text):
        raise YamlError(line, f"{text} is a number that Kubernetes objects cannot hold; put text in quotes")
    if len(text) > _MAX_DIGITS:
        return text
    if _INTEGER.fullmatch(text):
        return _based_integer(text)
    if _FLOAT.fullmatch(text) and isfinite(number := float(text)):
        return number
    return text


def _based_integer(text: str) -> int | float | str:
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-").replace("_", "").lower()
    base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2], 8 if digits[:1] == "0" and len(digits) > 1 else 10)
    digits = digits[2:] if digits[:2] in ("0x", "0b", "0o") else digits
    return _bounded(sign * int(digits, base)) if digits else text


def integer(text: str) -> int | float:
    """A decimal number. One that needs more than 64 bits becomes a float, as in Kubernetes. Raises ValueError."""
    return _bounded(int(text))


def _bounded(number: int) -> int | float:
    if _LOWEST <= number <= _HIGHEST:
        return number
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"{number.bit_length()} bits") from None


def _tagged(event: Any, text: str) -> Any:
    tag = event.tag.removeprefix(_TAG)
    if tag in ("str", "timestamp"):
        return text
    value = _plain(text, event.start_mark.line)
    if tag in _TAGGED_TYPES and type(value) in _TAGGED_TYPES[tag]:
        return value
    raise YamlError(event.start_mark.line, f"the tag {show(event.tag)} does not fit; manifests need no tags")


def _check_container_tag(event: Any) -> None:
    expected = "map" if type(event) is MappingStartEvent else "seq"
    if event.tag not in (None, "!", _TAG + expected):
        raise YamlError(event.start_mark.line, f"the tag {show(event.tag)} does not fit; manifests need no tags")


def _key(value: Any, event: Any) -> Any:
    """Keys are text, as in JSON; kubectl writes `1:` as "1" and `yes:` as "true". A bare << asks for a merge."""
    if type(event) is ScalarEvent and value == "<<" and event.tag is None and not event.style:
        return _MERGE
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case int() | float():
            return str(value)
        case _:
            raise YamlError(event.start_mark.line, f"{show(value)} cannot be the key of a mapping")


def _merged(value: Any, event: Any) -> list[dict[str, Any]]:
    sources = value if isinstance(value, list) else [value]
    if not all(isinstance(source, dict) for source in sources):
        raise YamlError(event.start_mark.line, "<< takes a mapping or a list of mappings")
    return sources
