"""Laws about the source that neither ruff nor the type checkers can hold."""

import ast
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nexus

ROOT = Path(nexus.__file__).parent

OWNERS = (
    "nexus._life",
    "nexus._tasks",
    "nexus._timer",
    "nexus.boundaries.local",
    "nexus.boundaries.link",
    "nexus.boundaries.outbox",
    "nexus.testing",
    "nexus.adapters._adapted",
)
"""Modules and packages that may make a task outside a TaskGroup: they keep, name and end it themselves."""

TRANSPORTS = frozenset({"console", "file", "memory", "mqtt", "serial", "tcp", "udp", "zmq"})
"""The modules of `nexus.adapters` that are transports."""

UNSAFE_MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"})
UNSAFE_CALLS = frozenset({"eval", "exec", "recv_pyobj", "send_pyobj", "unsafe_load"})
BUFFERS = {"deque": (2, "maxlen"), "Queue": (1, "maxsize"), "LifoQueue": (1, "maxsize")}
BUFFERS |= {"PriorityQueue": (1, "maxsize"), "SimpleQueue": (sys.maxsize, "")}
"""What holds items: how many positional arguments give it a bound, and the keyword that does."""


def sources() -> Iterator[tuple[str, str]]:
    """Give the name and the text of every module, through the links as users see them."""
    for folder, _, files in os.walk(ROOT, followlinks=True):
        for file in sorted(files):
            if file.endswith(".py"):
                path = Path(folder, file)
                parts = path.relative_to(ROOT.parent).with_suffix("").parts
                name = ".".join(parts).removesuffix(".__init__")
                yield name, path.read_text(encoding="utf-8")


SOURCES = dict(sources())


def name_of(node: ast.AST) -> str:
    """Give the last name of `f`, `module.f` and `f[int]`; the empty string for anything else."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return name_of(value)
    return ""


def imported(node: ast.AST) -> list[str]:
    """Name the modules that an absolute import statement asks for."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
    return []


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Give every call in a tree."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def no_unsafe_code(module: str, tree: ast.Module, text: str) -> Iterator[int]:
    """Nothing that comes over a wire can be run: no pickle, no marshal, no shelve, no eval."""
    for node in ast.walk(tree):
        if any(name.partition(".")[0] in UNSAFE_MODULES for name in imported(node)):
            yield node.lineno
    for call in calls(tree):
        loads = isinstance(call.func, ast.Attribute) and ast.unparse(call.func) == "yaml.load"
        if loads or name_of(call.func) in UNSAFE_CALLS:
            yield call.lineno


def no_unbounded_buffer(module: str, tree: ast.Module, text: str) -> Iterator[int]:
    """Every queue and deque has a bound, or a comment `# bounded by ...` that says what bounds it."""
    lines = text.splitlines()
    for call in calls(tree):
        positional, keyword = BUFFERS.get(name_of(call.func), (0, ""))
        unbounded = len(call.args) < positional and all(each.arg != keyword for each in call.keywords)
        arguments = [*call.args, *(each.value for each in call.keywords)]
        as_factory = any(name_of(each) in BUFFERS for each in arguments if not isinstance(each, ast.Call))
        where = "\n".join(lines[max(0, call.lineno - 2) : (call.end_lineno or call.lineno) + 1]).lower()
        if (unbounded or as_factory) and "# bounded by " not in where:
            yield call.lineno


def no_stray_task(module: str, tree: ast.Module, text: str) -> Iterator[int]:
    """Every task has an owner and a name: it is made in a TaskGroup, or in a module that owns its tasks."""
    for call in calls(tree):
        made_by = name_of(call.func)
        if made_by not in {"create_task", "ensure_future"}:
            continue
        group = isinstance(call.func, ast.Attribute) and not any(
            word in ast.unparse(call.func.value) for word in ("loop", "asyncio")
        )
        named = any(each.arg == "name" for each in call.keywords) or made_by == "ensure_future"
        if not named or not (group or f"{module}.".startswith(tuple(f"{owner}." for owner in OWNERS))):
            yield call.lineno


def no_hidden_import(module: str, tree: ast.Module, text: str) -> Iterator[int]:
    """Imports stand at the top of their module; only the command line imports lazily."""
    if module.startswith("nexus.cli"):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = (each for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom))
            yield from (each.lineno for each in inner)


def no_stub(module: str, tree: ast.Module, text: str) -> Iterator[int]:
    """What is not there is not promised: nothing raises NotImplementedError."""
    for raised in (node for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None):
        if any(isinstance(n, ast.Name) and n.id == "NotImplementedError" for n in ast.walk(raised)):
            yield raised.lineno


def docstring(module: str, tree: ast.Module, text: str) -> Iterator[int]:
    """Every module says in its first line what it is."""
    if not ast.get_docstring(tree):
        yield 1


def light_core(module: str, tree: ast.Module, text: str) -> Iterator[int]:
    """The core imports the standard library and attrs, and nothing else."""
    if module.startswith(("nexus.adapters", "nexus.boundaries", "nexus.cli")):
        return
    allowed = sys.stdlib_module_names | {"attr", "attrs", "nexus", "_typeshed"}  # the last for type checkers
    for node in ast.walk(tree):
        if any(name.partition(".")[0] not in allowed for name in imported(node)):
            yield node.lineno


def no_foreign_transport(module: str, tree: ast.Module, text: str) -> Iterator[int]:
    """What belongs to one transport, `nexus.adapters._mqtt_packets`, is imported by no other."""
    if module.startswith(("nexus.boundaries", "nexus.cli")):
        return
    package, name = "nexus.adapters", module.rpartition(".")[2]
    for node in ast.walk(tree):
        modules = imported(node)
        if isinstance(node, ast.ImportFrom) and modules == [package]:
            modules = [f"{package}.{alias.name}" for alias in node.names]
        for other in (each.removeprefix(f"{package}.") for each in modules if each.startswith(package)):
            owner = other.lstrip("_").partition("_")[0]
            if owner in TRANSPORTS and name.lstrip("_").partition("_")[0] != owner:
                yield node.lineno


Rule = Callable[[str, ast.Module, str], Iterator[int]]
RULES: tuple[Rule, ...] = (
    no_unsafe_code,
    no_unbounded_buffer,
    no_stray_task,
    no_hidden_import,
    no_stub,
    docstring,
    light_core,
    no_foreign_transport,
)


def broken(rule: Rule, module: str, text: str) -> list[str]:
    """Name the places where a module breaks a rule."""
    return [f"{module}:{line}: {rule.__doc__}" for line in rule(module, ast.parse(text), text)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule: Rule) -> None:
    """Every module keeps every rule."""
    assert [place for module, text in SOURCES.items() for place in broken(rule, module, text)] == []


BAD = [
    (no_unsafe_code, "import pickle"),
    (no_unsafe_code, "from marshal import loads"),
    (no_unsafe_code, "import shelve as s"),
    (no_unsafe_code, "eval('1')"),
    (no_unsafe_code, "builtins.exec('1')"),
    (no_unsafe_code, "yaml.load(text)"),
    (no_unsafe_code, "await socket.recv_pyobj()"),
    (no_unbounded_buffer, "asyncio.Queue()"),
    (no_unbounded_buffer, "queue.SimpleQueue()"),
    (no_unbounded_buffer, "deque()"),
    (no_unbounded_buffer, "collections.deque[int]([1])"),
    (no_unbounded_buffer, "attrs.field(factory=deque)"),
    (no_unbounded_buffer, "defaultdict(deque)"),
    (no_stray_task, "asyncio.create_task(f(), name='f')"),
    (no_stray_task, "self._loop.create_task(f(), name='f')"),
    (no_stray_task, "ensure_future(f())"),
    (no_stray_task, "group.create_task(f())"),
    (no_hidden_import, "def f():\n    import os"),
    (no_hidden_import, "class C:\n    async def f(self):\n        from . import os"),
    (no_stub, "raise NotImplementedError"),
    (no_stub, "raise NotImplementedError('later')"),
    (docstring, "x = 1"),
    (light_core, "import zmq.asyncio"),
    (light_core, "from orjson import dumps"),
    (no_foreign_transport, "from nexus.adapters._mqtt_packets import text"),
    (no_foreign_transport, "import nexus.adapters.tcp"),
    (no_foreign_transport, "from nexus.adapters import _zmq_port"),
]

GOOD = [
    (no_unsafe_code, "re.compile('eval')"),
    (no_unbounded_buffer, "asyncio.Queue(10)"),
    (no_unbounded_buffer, "Queue(maxsize=size)"),
    (no_unbounded_buffer, "deque(items, 5)"),
    (no_unbounded_buffer, "deque(maxlen=5)"),
    (no_unbounded_buffer, "deque()  # bounded by the queue's own maxsize"),
    (no_stray_task, "group.create_task(f(), name='f')"),
    (no_hidden_import, "import os"),
    (docstring, '"""Say it."""'),
    (light_core, "from attrs import frozen\nfrom . import errors\nfrom nexus import errors"),
]


@pytest.mark.parametrize(("rule", "text"), BAD)
def test_rule_sees_what_breaks_it(rule: Rule, text: str) -> None:
    """Each rule finds each bad sample, so that its silence means something."""
    assert broken(rule, "nexus.sample", text)


@pytest.mark.parametrize(("rule", "text"), GOOD)
def test_rule_lets_pass_what_keeps_it(rule: Rule, text: str) -> None:
    """No rule complains of a good sample."""
    assert not broken(rule, "nexus.sample", text)
