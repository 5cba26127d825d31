"""Each adapter has a page with its options, and that page tells the truth."""

import re
from pathlib import Path

import pytest

from nexus.adapters._config import option_table
from nexus.adapters._endpoint import BUILT_IN, find_adapter

PAGES = Path(__file__).parents[2] / "docs" / "adapters"
ROW = re.compile(r"^\| `(\w+)` \| (.*) \| `(.*)` \| (.*) \|$", re.MULTILINE)
SCHEMES = sorted(BUILT_IN)


def page_of(module: str) -> str:
    """Return the text of the page of a transport."""
    name = module.rpartition(".")[2]
    return (PAGES / ("index.md" if name == "memory" else f"{name}.md")).read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_lists_every_option(scheme: str) -> None:
    """The table of options is what the config says: names, what is allowed, defaults, meanings."""
    page = page_of(BUILT_IN[scheme])
    listed = {
        name: (kind.replace("\\|", "|"), default, help) for name, kind, default, help in ROW.findall(page)
    }
    rows = option_table(find_adapter(scheme).config)
    assert listed == {row.name: (row.type, row.default, row.help) for row in rows}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_index_names_every_scheme(scheme: str) -> None:
    """Every URL scheme stands on the page about adapters."""
    assert f"`{scheme}:" in (PAGES / "index.md").read_text(encoding="utf-8") or f"{scheme}:" in page_of(
        "x.memory"
    )
