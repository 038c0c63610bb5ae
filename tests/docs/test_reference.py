"""Is the reference complete? What the product can tell of itself stands there as it tells it; the rest is at least named."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from generated import PARTS, commands, parts_of, renewed
from pages import DOCS, ROOT, pages, reference

from gwanmun.api.kinds import KINDS
from gwanmun.ir import InferenceSettings
from gwanmun.resolve.features import SUPPORTED_FEATURES
from gwanmun.xds.accesslog import logged_fields

SOURCE = ROOT / "src/gwanmun"
NO_REASONS = {"Event", "Normal", "Warning", "Ready", "In", "NotIn", "Exists", "DoesNotExist"}
"""Other words of Kubernetes that the code has and no schema of ours lists."""


def test_generated_parts_are_as_the_product_is(request: pytest.FixtureRequest) -> None:
    found = []
    for page in pages():
        text = page.read_text()
        found += parts_of(text)
        made = renewed(text)
        if request.config.getoption("rewrite_goldens"):
            page.write_text(made)
        else:
            assert text == made, f"{page.relative_to(ROOT)} is out of date: pytest tests/docs --rewrite-goldens"
    assert sorted(found) == sorted(PARTS)


def test_the_fields_of_the_access_log_are_explained_and_no_others() -> None:
    rows = re.findall(r"^\| (`.*?) \|", reference("access-log.md"), re.MULTILINE)
    explained = {field for row in rows for field in re.findall(r"`(\w+)`", row)}
    assert explained == logged_fields(InferenceSettings())


def test_every_reason_of_a_condition_is_explained() -> None:
    """Those that the goldens show, where each must occur."""
    shown = set()
    for golden in (ROOT / "tests/golden").rglob("*.out.yaml"):
        shown |= set(re.findall(r"\b[A-Z]\w+: '?(?:True|False) ([A-Z]\w+)", golden.read_text()))
    page = reference("conditions.md")
    assert sorted(reason for reason in shown if f"`{reason}`" not in page) == []


def test_every_reason_that_the_code_has_is_explained() -> None:
    """A word in capitals of `resolve` or `status` that is no kind, feature or value of a field is taken for one."""
    others = NO_REASONS.union(SUPPORTED_FEATURES, (kind.kind for kind in KINDS.values()))
    for schema in SOURCE.glob("api/*/*.yaml"):
        others.update(*map(_enumerated, yaml.safe_load_all(schema.read_text())))
    page = reference("conditions.md")
    assert sorted(word for word in _words_in_code() - others if f"`{word}`" not in page) == []


def _words_in_code() -> set[str]:
    found = set()
    for path in (*SOURCE.glob("resolve/*.py"), *SOURCE.glob("status/[!_]*.py")):
        constants = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        found |= {value for value in constants if isinstance(value, str) and re.fullmatch("[A-Z][a-z]+[A-Za-z]*", value)}
    return found


def _enumerated(schema: Any) -> Iterator[str]:
    """The values that fields may have."""
    if isinstance(schema, dict):
        yield from map(str, schema["enum"] if isinstance(schema.get("enum"), list) else ())
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _enumerated(part)


def test_every_command_that_a_page_shows_is_one() -> None:
    known = set(commands())
    for page in pages():
        for word in re.findall(r"^(?:\.venv/bin/)?gwanmun (\w+)", _code(page), re.MULTILINE):
            assert word in known, f"{page.relative_to(DOCS)}: gwanmun {word}"


def _code(page: Path) -> str:
    return "\n".join(re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL))
