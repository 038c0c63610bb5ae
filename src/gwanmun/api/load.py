"""One manifest file to typed objects and problems with line numbers: YAML, validation and decoding in one pass.

Pure: text in, values out. Which files there are, and what stays in force while one is broken, is the provider's matter.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from gwanmun.api import Object
from gwanmun.api.decode import decode_object
from gwanmun.api.problem import FieldProblem, Severity, format_path
from gwanmun.api.validate import validate
from gwanmun.api.yaml import Document, DocumentProblem, iter_documents

MAX_PROBLEMS = 1_000
"""Per file. A file with more is not a manifest, and nobody reads on."""


@dataclass(frozen=True, slots=True)
class LoadedObject:
    """A sound object and where it stands. `line` counts from 1."""

    object: Object
    source: str
    line: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file. `kind` and `name` (namespace/name) are empty where they could not be read.

    `path` is the field as users write it, empty where the whole document is meant.
    """

    source: str
    line: int
    kind: str
    name: str
    path: str
    message: str
    severity: Severity

    def __str__(self) -> str:
        subject = f"{self.kind} {self.name}: " if self.kind and self.name else ""
        field = f"{self.path}: " if self.path else ""
        return f"{self.source}:{self.line}: {self.severity}: {subject}{field}{self.message}"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """All sound objects of a file in file order, and all problems."""

    objects: list[LoadedObject]
    problems: list[Problem]


def load_text(text: bytes | str, source: str) -> LoadResult:
    """Every object of a manifest file. Total: any input gives a result, and a broken document hides no other."""
    result = LoadResult([], [])
    lines: dict[tuple[str, str, str, str], int] = {}
    for document in iter_documents(text, source):
        if len(result.problems) >= MAX_PROBLEMS:
            message = f"more than {MAX_PROBLEMS} problems; the rest of the file is not read"
            result.problems.append(Problem(source, document.line, "", "", "", message, "error"))
            return result
        match document:
            case DocumentProblem(line=line, message=message):
                result.problems.append(Problem(source, line, "", "", "", message, "error"))
            case Document():
                _load_document(document, lines, result)
    return result


def _load_document(document: Document, lines: dict[tuple[str, str, str, str], int], result: LoadResult) -> None:
    validated = validate(document.value)
    problems = list(validated.problems)
    if validated.value is not None and validated.kind is not None:
        kind, metadata = validated.kind, validated.value["metadata"]
        key = (kind.group, kind.kind, metadata.get("namespace", ""), metadata["name"])
        if key in lines:
            message = f"the same object stands in line {lines[key]}, which is used; this one is ignored"
            problems.append(FieldProblem((), message))
        else:
            try:
                loaded = decode_object(validated.value, kind)
            except msgspec.ValidationError as error:
                problems.append(FieldProblem((), f"cannot be read: {error}"))
            else:
                lines[key] = document.line
                result.objects.append(LoadedObject(loaded, document.source, document.line))
    result.problems.extend(_located(problem, document) for problem in problems)


def _located(problem: FieldProblem, document: Document) -> Problem:
    kind, name = _subject(document.value)
    line = document.line_of(problem.path) if problem.path else document.line
    path = format_path(problem.path)
    return Problem(document.source, line, kind, name, path, problem.message, problem.severity)


def _subject(value: dict[str, Any]) -> tuple[str, str]:
    kind, metadata = value.get("kind"), value.get("metadata")
    if not isinstance(kind, str) or not isinstance(metadata, dict):
        return (kind if isinstance(kind, str) else ""), ""
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not isinstance(name, str):
        return kind, ""
    return kind, f"{namespace}/{name}" if isinstance(namespace, str) and namespace else name
