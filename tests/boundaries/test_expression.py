"""Laws about expressions: they compute what Python would, and can do nothing else."""

import time
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nexus.boundaries._expression import ALLOWED, compile_expression
from nexus.errors import ConfigError

DATA = {"temperature": 81.5, "level": "alarm", "n": 7, "oven": {"zone": [1, 2, 3], "_id": "x"}, "none": None}
META = {"topic": "plant/a", "peer": "10.0.0.1"}
RUNTIME = (LookupError, TypeError, ValueError, ArithmeticError)
"""What an expression may raise when it meets data that it was not made for."""


def value(text: str, data: Any = DATA, meta: dict[str, Any] = META) -> Any:
    return compile_expression(text)(data, meta)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("temperature > 80", True),
        ("-10 if temperature > 80 else 0", -10),
        ('topic == "plant/a" and n in (6, 7)', True),
        ("none is None or n", True),
        ("none or n", 7),
        ("n and level and topic", "plant/a"),
        ("not n", False),
        ("1 < n <= 7 != 8", True),
        ("1 < n < 7 < 8", False),
        ('"a" not in level', False),
        ("oven.zone[-1] + oven['zone'][0]", 4),
        ("oven._id", "x"),
        ("data.n * 2 - n % 4 / 2 + n // 2", 15.5),
        ("-n + abs(-2)", -5),
        ("min(n, 3) + max(oven.zone) + len(level)", 11),
        ('round(2.345, 2) + int("3") + float("0.5")', round(2.345, 2) + 3.5),
        ('upper(level) + lower("A") + str(n) + str(True)', "ALARMa7True"),
        ('startswith(topic, "plant/") and endswith(topic, "a")', True),
        ('like(topic, "plant/[a-c]") and not like(topic, "plant")', True),
        ("meta.peer", "10.0.0.1"),
        ("{'t': temperature, 'where': [topic, n]}", {"t": 81.5, "where": ["plant/a", 7]}),
        ("(n,\n n)[0]", 7),
    ],
)
def test_an_expression_means_what_it_means_in_python(text: str, expected: object) -> None:
    """Fields, access, arithmetic, comparisons and functions give what Python gives."""
    assert value(text) == pytest.approx(expected) if isinstance(expected, float) else value(text) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("n ** 2", "the operator Pow"),
        ("n & 1", "the operator BitAnd"),
        ("~n", "the operator Invert"),
        ("lambda: n", "a lambda"),
        ("[x for x in oven]", "a comprehension"),
        ("(x for x in oven)", "a comprehension"),
        ("(x := 3)", "an assignment"),
        ("f'{n}'", "an f-string"),
        ("n[1:2]", "a slice"),
        ("1j", "complex"),
        ("...", "ellipsis"),
        ("await n", "Await"),
        ("[*n]", "a star"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(text: str, found: str) -> None:
    """An error says what was found, at which column, and all that is allowed."""
    with pytest.raises(ConfigError, match=f"column [0-9]+: found {found}") as caught:
        compile_expression(text)
    assert ALLOWED in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("system('ls')", "found the function 'system'; the functions are abs, endswith"),
        ("level.upper()", "found a call of Attribute; the functions are"),
        ("abs(x=1)", "takes plain ones"),
        ("max(*oven)", "takes plain ones"),
        ("abs(1, 2)", "abs\\(\\) takes 1 arguments, found 2"),
        ("like(topic)", "takes 2 arguments"),
        ("{n: 1}", "keys of a mapping are texts"),
        ("{**oven}", "keys of a mapping are texts"),
        ("1 +", "at its end"),
        ("a b", "column"),
        ("", "empty"),
        ("  ", "empty"),
        ("x" * 2001, "at most 2000 characters"),
        ("+".join("a" * 120), "nested more than 30"),
        ("[" + "1," * 300 + "]", "more than 200 parts"),
        ("[" * 150 + "1" + "]" * 150, "nested"),
        ("-" * 1900 + "1", "nested"),
        ("9" * 30, "64 bits"),
        ("\x00", "cannot be read|null"),
        ("\ud800", "cannot be read"),
    ],
)
def test_a_wrong_expression_is_a_config_error(text: str, why: str) -> None:
    """Whatever is wrong with it is said when it is compiled."""
    with pytest.raises(ConfigError, match=why):
        compile_expression(text)


@pytest.mark.parametrize(
    "text", ["n.__class__", "__import__", "data.__dict__.x", "meta.__init__", "''.__len__"]
)
def test_names_of_pythons_own_are_refused(text: str) -> None:
    """No attribute that Python keeps for itself can be named."""
    with pytest.raises(ConfigError, match="begin with __"):
        compile_expression(text)


@pytest.mark.parametrize(
    "text", ["n.real", "level.upper", "data.items", "oven.zone.append", "n['__class__']"]
)
def test_access_reads_fields_and_never_attributes(text: str) -> None:
    """a.b is a field of a mapping; what Python objects have besides cannot be reached."""
    with pytest.raises(LookupError, match="there is no field"):
        value(text)


def test_a_missing_field_says_which_there_are() -> None:
    """The error of a field that is not there lists the fields, for data and what is in it."""
    with pytest.raises(
        LookupError, match="no field 'temp'; the fields are: level, n, none, oven, temperature"
    ):
        value("temp > 3")
    with pytest.raises(LookupError, match="no field 'x'; the fields are: _id, zone"):
        value("oven.x")
    with pytest.raises(LookupError, match="no topic; it gives: peer"):
        value("topic", meta={"peer": 1})
    with pytest.raises(LookupError, match="no item 3; there are 3"):
        value("oven.zone[3]")


def test_fields_of_objects_are_their_attrs_fields() -> None:
    """Typed data has the fields that its class declares, and no others."""

    @attrs.frozen
    class Reading:
        temperature: float
        secret: str = attrs.field(default="s")

        def method(self) -> None: ...

    assert value("temperature > 80 and data.secret == 's'", Reading(81.0)) is True
    with pytest.raises(LookupError, match="the fields are: secret, temperature"):
        value("method", Reading(81.0))


@pytest.mark.parametrize(
    "text",
    [
        "level * 1000000000",
        "1000 * level",
        "[1] * 3",
        "'%1000000000d' % 5",
        "level - 1",
        "big * big * big",
        "round(5, 0 - 1000000000)",
        "int(many)",
        "str(oven)",
        "level + 1",
        "long + long",
        "n < level",
        "n / 0",
        "len(n)",
        "min(n)",
        "lower(n)",
        "float('x')",
        "like(n, '*')",
        "like(long, '*')",
        "like('a', long)",
    ],
)
def test_no_result_grows_without_end(text: str) -> None:
    """Arithmetic is for numbers, texts and integers have a largest size, and a wrong type is an error."""
    data = {**DATA, "big": 2**500, "many": "9" * 5000, "long": "x" * 2**20}
    begin = time.process_time()
    with pytest.raises(RUNTIME):
        value(text, data)
    assert time.process_time() - begin < 0.5


WORDS = """temperature level n oven data meta topic . [ ] ( ) , + - * / // % ** < > == != in not and or if
else is None True 1 2.5 'a' "b" : { } abs( len( str( like( round( __class__ lambda := for x ; \\ # @ 0x9
~ 1e999"""
words = st.sampled_from([*WORDS.split(), " ", "\n"])


@settings(max_examples=400)
@given(
    st.lists(words, max_size=30).map(" ".join)
    | st.text(max_size=60)
    | st.lists(words, max_size=30).map("".join)
)
@example("__import__('os').system('true')")
@example("().__class__.__bases__[0].__subclasses__()")
def test_no_text_does_anything_but_compute_or_be_refused(text: str) -> None:
    """Any text is either refused with a ConfigError, or computes from the data, which stays as it is."""
    try:
        run = compile_expression(text)
    except ConfigError:
        return
    before = repr((DATA, META))
    try:
        result = run(DATA, META)
    except RUNTIME:
        result = None
    assert repr((DATA, META)) == before
    assert isinstance(result, None | bool | int | float | str | bytes | list | tuple | dict)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("a*b", ["ab", "axxb"], ["", "a", "abc"]),
        ("?", ["x"], ["", "xx"]),
        ("[a-c]", ["b"], ["d"]),
        ("plant/*", ["plant/1", "plant/1/2"], ["plant"]),
        ("(", ["("], [")"]),
    ],
)
def test_like_takes_the_whole_text(pattern: str, good: list[str], bad: list[str]) -> None:
    """A pattern means what it means in a shell, for the whole of a text."""
    run = compile_expression("like(text, pattern)")
    assert all(run({"text": text, "pattern": pattern}, {}) for text in good)
    assert not any(run({"text": text, "pattern": pattern}, {}) for text in bad)
