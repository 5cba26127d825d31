"""The long and the short form of a law: how big, from which seed, and the line of figures at the end."""

import json
import os
import sys
import time
from collections.abc import Callable

import attrs
import pytest

Figures = Callable[..., None]


@attrs.frozen
class Form:
    """One form of a law."""

    is_long: bool
    seed: int

    def size(self, short: int, long: int) -> int:
        """Choose a number."""
        return long if self.is_long else short


@pytest.fixture(params=["short", pytest.param("long", marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def form(request: pytest.FixtureRequest) -> Form:
    """Both forms; the long one with `-m slow`. NEXUS_SEED chooses another seed than 0."""
    return Form(request.param == "long", int(os.environ.get("NEXUS_SEED", "0")))


@pytest.fixture
def figures(request: pytest.FixtureRequest, form: Form, capsys: pytest.CaptureFixture[str]) -> Figures:
    """Print one line of JSON at the end of a long form."""
    began = time.perf_counter()

    def say(**counts: float) -> None:
        line = {"law": request.node.name, "seed": form.seed, **counts}
        line["wall_s"] = round(time.perf_counter() - began, 2)
        if form.is_long:
            with capsys.disabled():
                sys.stdout.write(f"\n{json.dumps(line)}\n")

    return say
