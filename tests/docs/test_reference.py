"""The reference names everything that is public, and nothing else."""

import re
from pathlib import Path

import nexus

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
DOCUMENTED = re.compile(r"^\.\. (?:auto|py:)(?:class|data|function|exception):: (\w+)$", re.MULTILINE)
ELSEWHERE = {"NexusError", "errors"}
"""Names that are documented with `nexus.errors`, whose page lists itself."""


def test_the_reference_names_everything_public() -> None:
    """Every name of `nexus.__all__` has an entry, and every entry is public."""
    page = (REFERENCE / "nexus.md").read_text(encoding="utf-8")
    assert sorted(DOCUMENTED.findall(page)) == sorted(set(nexus.__all__) - ELSEWHERE)


def test_other_modules_list_themselves() -> None:
    """The other modules are documented whole, by their `__all__`."""
    for module in ("errors", "testing", "adapters", "boundaries"):
        page = (REFERENCE / f"{module}.md").read_text(encoding="utf-8")
        assert f".. automodule:: nexus.{module}\n   :members:\n" in page
