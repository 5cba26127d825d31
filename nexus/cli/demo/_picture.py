"""The last picture of a demo as a drawing, for the documentation."""

import io
import re
from pathlib import Path

from rich.console import Console, RenderableType

__all__ = ["WIDTH", "draw"]

WIDTH = 80
"""Columns of a picture, and of a summary that goes into a file."""


def draw(path: Path, command: str, *shown: RenderableType) -> None:
    """Write what a command shows as an SVG of fixed width that fetches no font from elsewhere."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(f"$ {command}", style="dim")
    for each in shown:
        console.print(each)
    drawn = console.export_svg(title=command, unique_id="nexus-demo")
    drawn = re.sub(r"@font-face {.*?}\s*", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", "Menlo, Consolas, DejaVu Sans Mono, monospace")
    path.write_text(drawn, encoding="utf-8")
