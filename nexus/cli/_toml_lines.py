"""Where in a TOML file each key stands: `tomllib` does not say."""

import re
from collections.abc import Iterator, Mapping

__all__ = ["Path", "lines_of", "nearest", "path_text"]

Path = tuple[str | int, ...]
"""Names of keys, and numbers of tables in arrays of tables."""

TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|' + r"'''.*?'''|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'"
    r"|\#[^\n]*|\n|[A-Za-z0-9_-]+|[ \t\r]+|.",
    re.DOTALL,
)


def lines_of(text: str) -> dict[Path, int]:
    """Find the line of every table and key of a TOML file that can be read; those of inline tables are left
    out."""
    places: dict[Path, int] = {}
    arrays: dict[Path, int] = {}
    table: Path = ()
    for line, tokens in statements(text):
        if tokens[0] == "[":
            is_array = tokens[1:2] == ["["]
            table = resolved(names(tokens), arrays, is_array)
            places.setdefault(table, line)
        else:
            path = table
            for name in names(tokens[: tokens.index("=")] if "=" in tokens else tokens):
                path = (*path, name)
                places.setdefault(path, line)
    return places


def statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Give each header and each key with its value, as tokens, and the line it begins on."""
    tokens: list[str] = []
    line = begin = 1
    depth = 0
    for found in TOKEN.finditer(text + "\n"):
        token = found[0]
        if token == "\n" and depth <= 0:
            if tokens:
                yield begin, tokens
            tokens, depth = [], 0
        elif not token.isspace() and not token.startswith("#"):
            if not tokens:
                begin = line
            tokens.append(token)
            depth += (token in "[{") - (token in "]}")
        line += token.count("\n")


def names(tokens: list[str]) -> list[str]:
    """Pick the names out of a key or header."""
    return [token[1:-1] if token[0] in "\"'" else token for token in tokens if token not in ("[", "]", ".")]


def resolved(header: list[str], arrays: dict[Path, int], is_array: bool) -> Path:
    """Turn the names of a header into a path, with the numbers of the arrays on its way."""
    path: Path = ()
    for place, name in enumerate(header):
        path = (*path, name)
        if is_array and place == len(header) - 1:
            arrays[path] = arrays.get(path, -1) + 1
        if path in arrays:
            path = (*path, arrays[path])
    return path


def nearest(path: Path, places: Mapping[Path, int]) -> int:
    """Return the line of a key, or of the nearest thing that holds it."""
    while path:
        if path in places:
            return places[path]
        path = path[:-1]
    return 1


def path_text(path: Path) -> str:
    """Write a path as readers know it: `sources[0].url`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
