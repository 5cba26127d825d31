"""Regular expressions whose time grows with the length of the text alone, whatever the pattern.

A pattern is a set of states that are followed at once; what follows from which set by which character is
kept. Nothing is tried twice, so no text can make a careless pattern slow, as it can with `re`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from nexus.adapters._kinds import shown
from nexus.errors import ConfigError

__all__ = ["compile_pattern"]

Test: TypeAlias = "Callable[[str], bool]"

MAX_PATTERN = 200
"""Characters."""
MAX_TEXT = 4_096
"""Characters that are compared: each may cost as much as there are states."""
MAX_STATES = 500
MAX_REPEAT = 100
MAX_KEPT = 4_096
"""Sets that are remembered."""

CLASSES: dict[str, Test] = {
    "d": lambda char: char.isdecimal(),
    "D": lambda char: not char.isdecimal(),
    "w": lambda char: char.isalnum() or char == "_",
    "W": lambda char: not (char.isalnum() or char == "_"),
    "s": str.isspace,
    "S": lambda char: not char.isspace(),
}
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def compile_pattern(pattern: str) -> Callable[[Any], bool]:
    """Make a function that says whether the whole of a text is as the pattern says.

    It raises TypeError for what is no text, and ValueError for one of more than 4,096 characters.

    Known are ``.``, ``[a-z]``, ``[^,]``, ``\\d \\w \\s \\D \\W \\S``, ``( )``, ``|``, ``* + ?`` and
    ``{m,n}``.

    Raises:
        ConfigError: it is not of this form, or too large.
    """
    if len(pattern) > MAX_PATTERN:
        raise ConfigError(f"a pattern has at most {MAX_PATTERN} characters, this one has {len(pattern)}")
    machine = Machine(pattern)
    kept: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(text: Any) -> bool:
        if not isinstance(text, str):
            raise TypeError(f"matches() is for texts, found a {type(text).__name__}")
        if len(text) > MAX_TEXT:
            raise ValueError(f"matches() compares up to {MAX_TEXT} characters, found {len(text)}")
        states = machine.first
        for char in text:
            following = kept.get((states, char))
            if following is None:
                if len(kept) >= MAX_KEPT:
                    kept.clear()
                following = kept[states, char] = machine.step(states, char)
            if not following:
                return False
            states = following
        return machine.END in states

    return matches


class Machine:
    """The states of a pattern: each tests a character and leads on, or leads to others at once."""

    END = 0

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.place = 0
        self.tests: list[Test | None] = [None]
        self.following: list[list[int]] = [[]]
        build = self.alternatives(0)
        if self.place < len(pattern):
            raise self.wrong("a ) without its (")
        self.first = self.closed([build(self.END)])

    def step(self, states: frozenset[int], char: str) -> frozenset[int]:
        """Return the states that a character leads to."""
        tests = self.tests
        return self.closed(
            [
                target
                for state in states
                if (test := tests[state]) is not None and test(char)
                for target in self.following[state]
            ]
        )

    def closed(self, states: list[int]) -> frozenset[int]:
        """Add the states that are reached without a character."""
        found: set[int] = set()
        while states:
            state = states.pop()
            if state not in found:
                found.add(state)
                if self.tests[state] is None:
                    states += self.following[state]
        return frozenset(state for state in found if self.tests[state] is not None or state == self.END)

    def state(self, test: Test | None, *following: int) -> int:
        """Add a state."""
        if len(self.tests) >= MAX_STATES:
            raise self.wrong(f"it has more than {MAX_STATES} states; repeat less")
        self.tests.append(test)
        self.following.append(list(following))
        return len(self.tests) - 1

    def wrong(self, why: str) -> ConfigError:
        return ConfigError(f"pattern {shown(self.pattern)}, column {self.place + 1}: {why}")

    @property
    def next(self) -> str:
        return self.pattern[self.place : self.place + 1]

    def take(self) -> str:
        char = self.next
        if not char:
            raise self.wrong("it ends too early")
        self.place += 1
        return char

    # Each part is a function: given the state that follows it, it adds its own and returns its first one.

    def alternatives(self, depth: int) -> Callable[[int], int]:
        if depth > 20:
            raise self.wrong("it is nested more than 20 deep")
        parts = [self.sequence(depth)]
        while self.next == "|":
            self.place += 1
            parts.append(self.sequence(depth))
        if len(parts) == 1:
            return parts[0]
        return lambda end: self.state(None, *[part(end) for part in parts])

    def sequence(self, depth: int) -> Callable[[int], int]:
        parts: list[Callable[[int], int]] = []
        while self.next and self.next not in "|)":
            parts.append(self.repeated(self.atom(depth)))

        def build(end: int) -> int:
            for part in reversed(parts):
                end = part(end)
            return end

        return build

    def repeated(self, part: Callable[[int], int]) -> Callable[[int], int]:
        while self.next and self.next in "*+?{":
            low, high = self.times()
            part = self.times_of(part, low, high)
        return part

    def times_of(self, part: Callable[[int], int], low: int, high: int | None) -> Callable[[int], int]:
        def build(end: int) -> int:
            if high is None:
                again = self.state(None, end)
                self.following[again].append(part(again))
                end = again
            else:
                last = end
                for _ in range(high - low):
                    end = self.state(None, last, part(end))
            for _ in range(low):
                end = part(end)
            return end

        return build

    def times(self) -> tuple[int, int | None]:
        sign = self.take()
        if sign != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        inside = ""
        while self.next != "}":
            inside += self.take()
        self.place += 1
        first, comma, second = inside.partition(",")
        digits = [each for each in (first, second) if each]
        if not first or not all(each.isascii() and each.isdigit() and len(each) < 4 for each in digits):
            raise self.wrong("{} holds numbers, as in {2} or {2,5} or {2,}")
        low = int(first)
        high = low if not comma else int(second) if second else None
        if low > MAX_REPEAT or (high is not None and (high > MAX_REPEAT or high < low)):
            raise self.wrong(f"{{}} repeats up to {MAX_REPEAT} times, the lesser number first")
        return low, high

    def atom(self, depth: int) -> Callable[[int], int]:
        char = self.take()
        if char == "(":
            if self.next == "?":
                raise self.wrong("groups are plain: ( )")
            inner = self.alternatives(depth + 1)
            if self.next != ")":
                raise self.wrong("a ( without its )")
            self.place += 1
            return inner
        if char in "*+?{":
            raise self.wrong(f"nothing before {char}")
        if char in "^$":
            raise self.wrong(f"the whole text is compared: leave {char} out, or write \\{char}")
        test = self.any_of() if char == "[" else self.escaped() if char == "\\" else self.plain(char)
        return lambda end: self.state(test, end)

    def plain(self, char: str) -> Test:
        if char == ".":
            return lambda found: True
        return lambda found: found == char

    def escaped(self) -> Test:
        char = self.take()
        if char in CLASSES:
            return CLASSES[char]
        literal = self.literal(char)
        return lambda found: found == literal

    def literal(self, char: str) -> str:
        """Return the character that an escape means."""
        if char.isalnum() and char not in ESCAPES:
            raise self.wrong(f"\\{char} is not known; known are \\d \\w \\s \\D \\W \\S \\n \\r \\t")
        return ESCAPES.get(char, char)

    def any_of(self) -> Test:
        negated = self.next == "^"
        self.place += negated
        ranges: list[tuple[str, str]] = []
        classes: list[Test] = []
        begin = self.place
        while self.next != "]" or self.place == begin:
            char = self.take()
            if char == "\\":
                char = self.take()
                if char in CLASSES:
                    classes.append(CLASSES[char])
                    continue
                char = self.literal(char)
            high = char
            if self.next == "-" and self.pattern[self.place + 1 : self.place + 2] not in ("]", ""):
                self.place += 1
                high = self.take()
                high = self.literal(self.take()) if high == "\\" else high
                if high < char:
                    raise self.wrong("a range of [ ] ends before it begins")
            ranges.append((char, high))
        self.place += 1

        def test(found: str) -> bool:
            inside = any(low <= found <= high for low, high in ranges) or any(each(found) for each in classes)
            return inside is not negated

        return test
