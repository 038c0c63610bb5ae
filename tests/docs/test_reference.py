"""Is the reference complete? What the product can tell of itself stands there as it tells it; the rest is at least named."""

import re
from pathlib import Path

import pytest
from generated import PARTS, commands, parts_of, renewed
from pages import DOCS, ROOT, pages, reference

from gwanmun.xds.accesslog import _REQUEST


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


def test_every_field_of_the_access_log_is_explained() -> None:
    page = reference("access-log.md")
    assert [field for field in _REQUEST if f"`{field}`" not in page] == []


def test_every_reason_of_a_condition_is_explained() -> None:
    """Those that the goldens show, where each must occur."""
    shown = set()
    for golden in (ROOT / "tests/golden").rglob("*.out.yaml"):
        shown |= set(re.findall(r"\b[A-Z]\w+: '?(?:True|False) ([A-Z]\w+)", golden.read_text()))
    page = reference("conditions.md")
    assert sorted(reason for reason in shown if f"`{reason}`" not in page) == []


def test_every_command_that_a_page_shows_is_one() -> None:
    known = set(commands())
    for page in pages():
        for word in re.findall(r"^(?:\.venv/bin/)?gwanmun (\w+)", _code(page), re.MULTILINE):
            assert word in known, f"{page.relative_to(DOCS)}: gwanmun {word}"


def _code(page: Path) -> str:
    return "\n".join(re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL))
