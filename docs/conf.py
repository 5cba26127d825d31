"""How Sphinx builds these pages: `sphinx-build -W docs docs/_build`."""

import builtins
import sys
from collections.abc import Iterator
from types import ModuleType

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon.docstring import GoogleDocstring

import nexus
import nexus.adapters
import nexus.adapters.console
import nexus.adapters.file
import nexus.adapters.memory
import nexus.adapters.mqtt
import nexus.adapters.packing
import nexus.adapters.serial
import nexus.adapters.tcp
import nexus.adapters.udp
import nexus.adapters.zmq
import nexus.boundaries
import nexus.boundaries.inbound
import nexus.boundaries.link
import nexus.boundaries.links
import nexus.boundaries.outbound
import nexus.boundaries.outbox
import nexus.boundaries.zmq
import nexus.errors
import nexus.testing

project = "event-nexus"
author = "The event-nexus maintainers"
copyright = "the event-nexus maintainers"
version = release = nexus.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "both"
napoleon_numpy_docstring = False
napoleon_use_ivar = False

html_theme = "furo"
html_title = "event-nexus"
html_static_path = ["_static"]

OURS: list[ModuleType] = [
    *(nexus, nexus.errors, nexus.testing, nexus.adapters, nexus.adapters.packing),
    *(nexus.adapters.memory, nexus.adapters.console, nexus.adapters.file, nexus.adapters.serial),
    *(nexus.adapters.tcp, nexus.adapters.udp, nexus.adapters.zmq, nexus.adapters.mqtt),
    *(nexus.boundaries, nexus.boundaries.inbound, nexus.boundaries.outbound, nexus.boundaries.links),
    *(nexus.boundaries.link, nexus.boundaries.outbox, nexus.boundaries.zmq),
]
"""Modules with public names; a name is documented under the first that has it."""


def public_names(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Give every name by which code or a docstring may mean something public, and its documented name."""
    for name in module.__all__:
        thing = getattr(module, name)
        full = f"{module.__name__}.{name}"
        yield name, full
        yield f"{getattr(thing, '__module__', module.__name__)}.{name}", full


PUBLIC: dict[str, str] = {}
for each in OURS:
    for alias, full_name in public_names(each):
        PUBLIC.setdefault(alias, full_name)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Find public names by the private module they live in; leave names of other libraries as they are."""
    if node.get("refdomain") != "py":
        return None
    target: str = node["reftarget"]
    head, _, member = target.rpartition(".")
    full = PUBLIC.get(target) or (f"{PUBLIC[head]}.{member}" if head in PUBLIC else None)
    if full is not None:
        domain = env.domains.python_domain
        for kind in ("obj", node["reftype"]):
            found = domain.resolve_xref(env, node["refdoc"], app.builder, kind, full, node, text)
            if found is not None:
                return found
    # A word in single backticks that is no public name is an argument's.
    is_argument = node["reftype"] == "obj" and target.isidentifier()
    return text if is_argument or is_foreign(target) else None


def is_foreign(name: str) -> bool:
    """Say whether a name is of Python or another library, or one of signatures that nobody imports."""
    root, _, _ = name.partition(".")
    last = name.rpartition(".")[2]
    if root in sys.stdlib_module_names or root == "zmq" or hasattr(builtins, name):
        return True
    return name in UNNAMED or last in UNNAMED


UNNAMED = {
    *("Any", "Callable", "Self", "P", "P_co", "H", "T", "Ts", "NamedEventTypeVar", "NamedEventClass"),
    *("AnySocket", "Binding", "HasStats", "Ledger", "Route", "_Inode", "_Way"),
    *("Adapted", "CommonConfig", "Convert", "Dialler", "Disk", "Door", "Framer", "Line", "Login", "MakeDoor"),
    "nexus.adapters._link.Link",  # what keeps a connection, and not the link of nexus.boundaries
    *("Files", "Linked", "OnLink", "OptionRow", "Overflow", "Run", "Stream", "T_co", "T_contra"),
    *("DeadLetterHandler", "ErrorHandler", "OnBad", "Stopping", "Wire", "limit=...)"),
}


def space_lists(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Put the blank lines around nested lists that reStructuredText wants and readers of code do not."""
    spaced: list[str] = []
    for line in lines:
        if what == "module" and spaced and line.lstrip().startswith("- ") and spaced[-1].strip():
            spaced.append("")
        spaced.append(line)
    lines[:] = spaced


def whole_docstring(self: GoogleDocstring) -> tuple[str, list[str]]:
    """Take the docstring of an attribute as it is: its types are in the code, and a colon is a colon."""
    return "", self._dedent(self._consume_to_end())


def setup(app: Sphinx) -> None:
    """Let Sphinx find what it does not find by itself, and read our docstrings as we mean them."""
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", space_lists)
    setattr(GoogleDocstring, "_consume_inline_attribute", whole_docstring)  # noqa: B010
