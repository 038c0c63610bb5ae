"""Rules of an API server for metadata: names, namespaces, labels, annotations."""

import re
from collections.abc import Iterator
from typing import Any

from gwanmun.api.kinds import Kind
from gwanmun.api.problem import FieldProblem, show

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_LABEL_LETTER_FIRST = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", re.ASCII)
_FIELDS: dict[str, type] = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "selfLink": str,
    "uid": str,
    "resourceVersion": str,
    "generation": int,
    "creationTimestamp": str,
    "deletionTimestamp": str,
    "deletionGracePeriodSeconds": int,
    "labels": dict,
    "annotations": dict,
    "ownerReferences": list,
    "finalizers": list,
    "managedFields": list,
}
_TYPES = {str: "text", int: "a whole number", dict: "a mapping", list: "a list"}
_MAX_ANNOTATIONS = 256 << 10


def check_metadata(metadata: Any, kind: Kind) -> tuple[dict[str, Any], list[FieldProblem]]:
    """The metadata without empty fields and with a namespace where the kind has one, and what is wrong with it."""
    if not isinstance(metadata, dict):
        return {}, [FieldProblem(("metadata",), "metadata with a name is missing")]
    problems = list(_check_fields(metadata))
    kept = {name: value for name, value in metadata.items() if value is not None and name in _FIELDS}
    if not problems:
        problems += _check_name(kept, kind)
        problems += _check_namespace(kept, kind)
        problems += _check_labels(kept.get("labels", {}))
        problems += _check_annotations(kept.get("annotations", {}))
    # Who wrote what is known to API servers only; an exported manifest may have it all the same.
    kept.pop("managedFields", None)
    if kind.namespaced:
        kept["namespace"] = kept.get("namespace") or "default"
    else:
        kept.pop("namespace", None)
    return kept, problems


def _check_fields(metadata: dict[str, Any]) -> Iterator[FieldProblem]:
    for name, value in metadata.items():
        expected = _FIELDS.get(name)
        if expected is None:
            yield FieldProblem(("metadata", name), "unknown field of metadata")
        elif value is not None and type(value) is not expected:
            quotes = "; put it in quotes" if expected is str and isinstance(value, int | float) else ""
            yield FieldProblem(("metadata", name), f"{show(value)} is not {_TYPES[expected]}{quotes}")
        elif name in ("labels", "annotations") and isinstance(value, dict):
            for key, text in value.items():
                if not isinstance(text, str):
                    hint = "; put it in quotes" if isinstance(text, int | float) else ""
                    yield FieldProblem(("metadata", name, key), f"{show(text)} is not text{hint}")


def _check_name(metadata: dict[str, Any], kind: Kind) -> Iterator[FieldProblem]:
    name = metadata.get("name", "")
    path = ("metadata", "name")
    if not name:
        also = "; a folder cannot generate names" if "generateName" in metadata else ""
        yield FieldProblem(path, f"a name is missing{also}")
    elif (kind.group, kind.kind) == ("", "Service"):
        if len(name) > 63 or not _LABEL_LETTER_FIRST.fullmatch(name):
            yield FieldProblem(path, f'{show(name)} is not at most 63 of a-z, 0-9 and "-", with a letter first')
    elif (kind.group, kind.kind) == ("", "Namespace"):
        if len(name) > 63 or not _LABEL.fullmatch(name):
            yield FieldProblem(path, f'{show(name)} is not at most 63 of a-z, 0-9 and "-", with a letter or digit at both ends')
    elif len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        yield FieldProblem(
            path, f'{show(name)} is not at most 253 of a-z, 0-9, "-" and ".", with a letter or digit at both ends'
        )


def _check_namespace(metadata: dict[str, Any], kind: Kind) -> Iterator[FieldProblem]:
    namespace = metadata.get("namespace", "")
    path = ("metadata", "namespace")
    if not namespace:
        return
    if not kind.namespaced:
        yield FieldProblem(path, f"{kind.kind} is cluster-scoped; the namespace is ignored", "warning")
    elif len(namespace) > 63 or not _LABEL.fullmatch(namespace):
        yield FieldProblem(
            path, f'{show(namespace)} is not at most 63 of a-z, 0-9 and "-", with a letter or digit at both ends'
        )


def _check_labels(labels: dict[str, str]) -> Iterator[FieldProblem]:
    for key, value in labels.items():
        if not _is_qualified(key):
            yield FieldProblem(("metadata", "labels", key), f"{show(key)} is not a label key such as team or example.com/team")
        if value and (len(value) > 63 or not _QUALIFIED.fullmatch(value)):
            yield FieldProblem(
                ("metadata", "labels", key),
                f'{show(value)} is not at most 63 letters, digits, "-", "_" and ".", with a letter or digit at both ends',
            )


def _check_annotations(annotations: dict[str, str]) -> Iterator[FieldProblem]:
    for key in annotations:
        if not _is_qualified(key.lower()):
            yield FieldProblem(
                ("metadata", "annotations", key), f"{show(key)} is not an annotation key such as note or example.com/note"
            )
    if sum(len(key) + len(value) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        yield FieldProblem(("metadata", "annotations"), f"together larger than {_MAX_ANNOTATIONS >> 10} KiB")


def _is_qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix)):
        return False
    return len(name) <= 63 and _QUALIFIED.fullmatch(name) is not None
