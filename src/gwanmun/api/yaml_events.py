"""One YAML stream to plain values, from libyaml's events rather than its node tree.

PyYAML's own loaders build the tree by recursion in C, and 20 KB of "[" ends the process. This machine keeps its own
stack, so it can also refuse what a manifest must not do: duplicate keys, aliases that expand without bound, numbers
that JSON lacks. Scalars mean what they mean to kubectl: YAML 1.1 words and octal numbers, no timestamps, no base 60.
"""

import re
from collections.abc import Iterator
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
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|0|[1-9][0-9_]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 400
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
    parser = _parser(text)
    plain: dict[str, Any] = {}
    stack: list[tuple[Any, ...]] = []
    anchors: dict[str, tuple[Any, int, int]] = {}
    nodes = characters = aliased_nodes = aliased_characters = 0
    container: Any = None
    key: Any = _NO_KEY
    merges: list[Any] = []
    root: Any = None
    line = 0
    while True:
        event = _next(parser, text)
        kind = type(event)
        if kind is ScalarEvent:
            nodes += 1
            characters += len(event.value)
            value = _scalar(event, plain)
            anchor, size = event.anchor, (1, len(event.value))
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            if len(stack) > MAX_DEPTH:
                raise YamlError(event.start_mark.line, f"nested more than {MAX_DEPTH} levels deep")
            if not stack:
                line = event.start_mark.line
            _check_container_tag(event)
            nodes += 1
            stack.append((container, key, merges, event.anchor, nodes, characters))
            container, key, merges = ({} if kind is MappingStartEvent else []), _NO_KEY, []
            continue
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            value = container
            for merged in merges:
                for name, inherited in merged.items():
                    value.setdefault(name, inherited)
            container, key, merges, anchor, nodes_before, characters_before = stack.pop()
            size = (nodes - nodes_before + 1, characters - characters_before)
        elif kind is AliasEvent:
            if event.anchor not in anchors:
                raise YamlError(
                    event.start_mark.line,
                    "this alias stands for nothing that ends before it; text that begins with * needs quotes",
                )
            value, *size_list = anchors[event.anchor]
            anchor, size = None, (size_list[0], size_list[1])
            nodes += size[0]
            characters += size[1]
            aliased_nodes += size[0]
            aliased_characters += size[1]
            if aliased_nodes > MAX_ALIASED_NODES or aliased_characters > MAX_ALIASED_CHARACTERS:
                raise YamlError(
                    event.start_mark.line,
                    f"aliases expand to more than {MAX_ALIASED_NODES} nodes or {MAX_ALIASED_CHARACTERS >> 20} MiB",
                )
        elif kind is DocumentStartEvent:
            anchors, root, line = {}, None, event.start_mark.line
            nodes = characters = aliased_nodes = aliased_characters = 0
            continue
        elif kind is DocumentEndEvent:
            yield line, root
            continue
        elif kind is StreamEndEvent:
            return
        else:
            continue

        if anchor is not None:
            anchors[anchor] = (value, *size)
        if not stack:
            root, line = value, (event.start_mark.line if kind is ScalarEvent else line)
        elif type(container) is list:
            container.append(value)
        elif key is _NO_KEY:
            key = _MERGE if _is_merge(event) else _key(value, event)
            if key in container:
                raise YamlError(event.start_mark.line, f"the key {show(key)} is there twice in one mapping")
        elif key is _MERGE:
            merges.extend(_merged(value, event))
            key = _NO_KEY
        else:
            container[key] = value
            key = _NO_KEY


def read_lines(text: str) -> list[dict[FieldPath, int]]:
    """For every document of the text, the line (from 0) of each field, by path; stops without fuss at an error."""
    documents: list[dict[FieldPath, int]] = []
    stack: list[tuple[FieldPath, Any, bool]] = []
    path: FieldPath = ()
    step: Any = _NO_KEY
    in_mapping = False
    try:
        parser = _parser(text)
        while (event := _next(parser, text)) is not None and type(event) is not StreamEndEvent:
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
                    step = _key(_scalar(event, {}), event) if kind is ScalarEvent else ""
                    documents[-1].setdefault((*path, step), line)
                    continue
                here = (*path, step) if step is not _NO_KEY else path
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
    except YamlError:
        return documents
    return documents


def _parser(text: str) -> Any:
    try:
        return CParser(text)
    except UnicodeEncodeError as error:
        raise YamlError(text.count("\n", 0, error.start), "half of a surrogate pair is no character") from None


def _next(parser: Any, text: str) -> Any:
    try:
        return parser.get_event()
    except yaml.reader.ReaderError as error:
        before = text.encode(errors="replace")[: max(error.position, 0)]
        raise YamlError(before.count(b"\n"), f"{error.reason}: no manifest holds such a character") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark is not None else 0
        raise YamlError(line, _explained(error, text, line)) from None
    except yaml.YAMLError as error:
        raise YamlError(0, f"not YAML: {error}") from None


def _explained(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    message = ", ".join(part for part in (error.context, error.problem) if part)
    lines = text.splitlines()
    at_fault = lines[line] if line < len(lines) else ""
    if "\t" in at_fault[: len(at_fault) - len(at_fault.lstrip())]:
        return f"{message}; YAML is indented with spaces, never with tabs"
    if error.problem == "mapping values are not allowed in this context":
        return f"{message}; is the line above indented alike, and is a value with a colon in quotes?"
    return message


def _scalar(event: Any, plain: dict[str, Any]) -> Any:
    text: str = event.value
    if event.tag is not None and event.tag != "!":
        return _tagged(event, text)
    if not event.implicit[0] or event.style not in ("", None) or event.tag == "!":
        return text
    if text in plain:
        return plain[text]
    value = plain[text] = _plain(text, event.start_mark.line)
    return value


def _plain(text: str, line: int) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "0123456789+-.":
        return text
    if len(text) <= _MAX_DIGITS:
        if _INTEGER.fullmatch(text):
            return _integer(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if number in (float("inf"), float("-inf")):
                raise YamlError(line, "too large for a number; put text in quotes")
            return number
    elif text.lstrip("+-")[:1].isdigit() and _FLOAT.fullmatch(text):
        raise YamlError(line, "too large for a number; put text in quotes")
    if _NOT_FINITE.fullmatch(text):
        raise YamlError(line, f"{text} is a number that Kubernetes objects cannot hold; put text in quotes")
    return text


def _integer(text: str) -> int | str:
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-").replace("_", "").lower()
    base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2], 8 if digits[:1] == "0" and len(digits) > 1 else 10)
    digits = digits[2:] if digits[:2] in ("0x", "0b", "0o") else digits
    return sign * int(digits, base) if digits else text


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


def _is_merge(event: Any) -> bool:
    return type(event) is ScalarEvent and event.value == "<<" and event.implicit[0] and event.style in ("", None)


def _key(value: Any, event: Any) -> str:
    """Keys are text, as in JSON; kubectl writes `1:` as "1" and `yes:` as "true"."""
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
