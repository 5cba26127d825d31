"""Compare the built distributions with the source tree: every file is there, at its place, once.

Usage: check_dist.py SOURCE DIST
"""

import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

source, dist = map(Path, sys.argv[1:])


def files(*folders: str) -> set[str]:
    """Name the Python files and type markers of some folders of the source; links are not followed."""
    paths = (path for folder in folders for path in (source / folder).rglob("*"))
    return {
        str(path.relative_to(source)) for path in paths if path.suffix == ".py" or path.name == "py.typed"
    }


def compare(what: Path, found: list[str], expected: set[str]) -> None:
    """End with a list of the differences, if there are any."""
    twice = [name for name, count in Counter(found).items() if count > 1]
    missing, extra = expected - set(found), set(found) - expected
    if twice or missing or extra:
        sys.exit(f"{what.name}: twice {twice}, missing {sorted(missing)}, not expected {sorted(extra)}")
    print(f"{what.name}: {len(found)} files, as in the tree")


(wheel,) = dist.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    names = [name for name in archive.namelist() if ".dist-info/" not in name]
installed = files("nexus") | {f"nexus/{name}" for name in files("adapters", "boundaries")}
compare(wheel, names, installed)

(sdist,) = dist.glob("*.tar.gz")
with tarfile.open(sdist) as archive:
    inside = [name.partition("/")[2] for name in archive.getnames()]
kept = [name for name in inside if name.endswith((".py", "py.typed"))]
kept += [
    name for name in inside if name in {"LICENSE", "README.md", "CHANGELOG.md", "setup.cfg", "pyproject.toml"}
]
compare(
    sdist,
    kept,
    files("nexus", "adapters", "boundaries", "tests")
    | {"LICENSE", "README.md", "CHANGELOG.md", "setup.cfg", "pyproject.toml"},
)
