"""Do the pages say what is there? Manifests in them are those of examples/, links lead somewhere."""

import re
from pathlib import Path

import pytest
from pages import DOCS, ROOT, blocks, pages

LINK = re.compile(r"\[[^]]*\]\(([^)#:]+)(#[^)]*)?\)")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_manifests_are_those_of_the_examples(page: Path) -> None:
    for block in blocks(page):
        if block.mark == "from":
            assert block.text in (ROOT / block.words).read_text(), f"not in {block.words}:\n{block.text}"


@pytest.mark.parametrize("page", [*pages(), *ROOT.glob("*.md")], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
