"""Text to documents: what YAML is accepted, what it means, and where its fields stand."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwanmun.api.load import load_text
from gwanmun.api.yaml import MAX_BYTES, Document, DocumentProblem, decode_documents


def values(text: str | bytes) -> list[Any]:
    """The value of each document, or the line and message of its problem."""
    found = decode_documents(text, "a.yaml")
    return [item.value if isinstance(item, Document) else (item.line, item.message) for item in found]


def refusal(text: str | bytes) -> str:
    """What is said of a text of one bad document."""
    (problem,) = decode_documents(text, "a.yaml")
    assert isinstance(problem, DocumentProblem)
    return problem.message


@pytest.mark.parametrize(
    ("scalar", "meaning"),
    [
        ("8000", 8000),
        ("0x1F", 31),
        ("0644", 420),
        ("0o17", 15),
        ("1_000", 1000),
        ("-1", -1),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("yes", True),
        ("off", False),
        ("~", None),
        ('"yes"', "yes"),
        ("2026-01-31", "2026-01-31"),
        ("12:30", "12:30"),
        ("1.2.3.4", "1.2.3.4"),
        ("10s", "10s"),
        ("-", "-"),
        ("!!str 5", "5"),
        ("18446744073709551616", 18446744073709551616.0),
        ("1e400", "1e400"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_mean_what_they_mean_to_kubectl(scalar: str, meaning: object) -> None:
    if scalar == "-":
        scalar = '"-"'
    (document,) = values(f"a: {scalar}")
    assert document == {"a": meaning}
    assert type(document["a"]) is type(meaning)


def test_documents_and_comments() -> None:
    text = "# head\n%YAML 1.2\n---\na: 1\n...\n---\n# nothing\n---\n---\n--- {b: 2}\n--- # note\nc: |\n  ---\n  x\n"
    assert values(text) == [{"a": 1}, {"b": 2}, {"c": "---\nx\n"}]


def test_byte_order_mark_windows_line_ends_and_utf_16() -> None:
    assert values("\ufeffa: 1\r\n---\r\nb: 2\r\n".encode()) == [{"a": 1}, {"b": 2}]
    assert values("a: 한글\n".encode("utf-16")) == [{"a": "한글"}]


def test_merge_keys() -> None:
    text = "base: &b {x: 1, w: 1}\nother: &o {x: 0, z: 0}\nall: {w: 2, <<: [*b, *o]}\ntext: {'<<': 1}"
    assert values(text)[0]["all"] == {"x": 1, "w": 2, "z": 0}
    assert values(text)[0]["text"] == {"<<": 1}


def test_keys_are_text() -> None:
    assert values("{1: a, yes: b, 1.5: c}") == [{"1": "a", "true": "b", "1.5": "c"}]


def test_lists_of_objects_are_taken_apart() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n- kind: A\n\n- kind: B\n  x: [1,\n   2]\n- 3\n"
    a, b, problem = decode_documents(text, "a.yaml")
    assert isinstance(a, Document)
    assert isinstance(b, Document)
    assert isinstance(problem, DocumentProblem)
    assert [a.value, b.value] == [{"kind": "A"}, {"kind": "B", "x": [1, 2]}]
    assert [a.line, b.line, b.line_of(("x", 1)), problem.line] == [4, 6, 8, 9]


def test_a_typed_list_names_its_kind_once() -> None:
    text = json.dumps({"apiVersion": "x/v1", "kind": "RouteList", "items": [{"metadata": {"name": "a"}}]})
    assert values(text) == [{"apiVersion": "x/v1", "kind": "Route", "metadata": {"name": "a"}}]


def test_json_with_its_own_escapes_and_tabs() -> None:
    (document,) = decode_documents('{\n\t"a": "b\\/c \\ud83d\\ude00",\n\t"d": {"e": 1}\n}', "a.json")
    assert isinstance(document, Document)
    assert document.value == {"a": "b/c 😀", "d": {"e": 1}}
    assert document.line == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", 'the key "a" is there twice in one mapping'),
        ('{"a": 1, "a": 2}', 'the key "a" is there twice in one mapping'),
        ("a:\n\t- b", "spaces, never with tabs"),
        ("a: [1\nb: 2\nc: 3", "a flow sequence that begins 1 line above"),
        ("a: b: c", "mapping values are not allowed"),
        ("a: .inf", "Kubernetes objects cannot hold"),
        ("a: !thing 1", "manifests need no tags"),
        ("a: !!map [1]", "manifests need no tags"),
        ("a: *b", "stands for nothing"),
        ("a: &a [*a]", "stands for nothing"),
        ("? [a]\n: b", "cannot be the key"),
        ("<<: 1", "<< takes a mapping"),
        ("- a", "a manifest is a mapping"),
        ("hello", "a manifest is a mapping"),
        ("a: \x01", "control characters"),
        (b"a: \xff", "not UTF-8"),
        ('{"a": "\\ud800"}', "escape code"),
        ("a: \ud800", "surrogate"),
        ("a: [", "flow"),
        ("[" * 100_000, "nested more than 100 levels deep"),
        ("- " * 100_000, "nested more than 100 levels deep"),
        ("? " * 100_000, "nested more than 100 levels deep"),
        ('{"a":' * 100_000, "nested more than 100 levels deep"),
        ('{"a":' + "[" * 300 + "]" * 300 + "}", "nested more than 100 levels deep"),
        (" " * (MAX_BYTES + 1), "larger than 64 MiB"),
    ],
)
def test_what_is_refused(text: str | bytes, said: str) -> None:
    assert said in refusal(text)


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]")
    assert "aliases expand to more than" in refusal("\n".join(lines))
    assert "aliases expand to more than" in refusal(f"a: &a {'x' * 1_000_000}\nb: [*a, *a, *a, *a, *a]")


def test_aliases_in_reason_are_fine() -> None:
    assert values("a: &a {x: 1}\nb: [*a, *a]") == [{"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}]}]


def test_fields_are_located() -> None:
    text = "# c\na: 1\n---\nspec:\n  rules:\n  - name: x\n    to: {y: 1}\n  - name: z\n"
    _, document = decode_documents(text, "a.yaml")
    assert isinstance(document, Document)
    lines = {path: document.line_of(path) for path in [("spec",), ("spec", "rules", 0, "to", "y"), ("spec", "rules", 1)]}
    assert lines == {("spec",): 4, ("spec", "rules", 0, "to", "y"): 7, ("spec", "rules", 1): 8}
    assert document.line_of(("spec", "rules", 0, "missing", "field")) == 6


YAMLISH = st.text(alphabet="ab01:-[]{}&*!|>'\"#,?%@ \n\t\r<~.\\\x00\u00e9\ufeff\ud800", max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)


@given(st.text() | YAMLISH | st.binary())
def test_any_text_gives_a_result(text: str | bytes) -> None:
    result = load_text(text, "a.yaml")
    assert all(problem.line >= 1 for problem in result.problems)


@given(st.dictionaries(st.text(max_size=8), JSON, min_size=1, max_size=4))
def test_json_means_the_same_as_yaml(value: dict[str, Any]) -> None:
    found = values(json.dumps(value))
    assert json.loads(json.dumps(found)) == json.loads(json.dumps([value]), parse_int=_as_kubernetes)


def _as_kubernetes(text: str) -> int | float:
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 63 else float(number)


GOOD = """\
apiVersion: v1
kind: Namespace
metadata:
  name: good
"""


@given(YAMLISH)
@settings(max_examples=200)
def test_no_document_can_hide_the_next(text: str) -> None:
    result = load_text(f"{text}\n---\n{GOOD}", "a.yaml")
    assert [loaded.object.metadata.name for loaded in result.objects][-1:] == ["good"]
