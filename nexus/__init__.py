"""Events, their order, their dispatch and their time: the core of event-nexus.

A nexus owns one priority queue. It pulls events from converters, is pushed to by producers, and
hands each event to the handlers of its type, the most urgent first. The core knows no wire:
`nexus.adapters` moves data, and `nexus.boundaries` turns data into events and back.

Importing the package costs next to nothing: what it offers is loaded when the first name is asked for, so
that an adapter, which needs `nexus.errors` alone, does not bring the whole runtime along.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from ._public import *  # noqa: F403 (the list is there, and only there)
else:

    def __getattr__(name: str) -> Any:
        """Load all names at the first one that is asked for."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        public = import_module("._public", __name__)
        offered = {each: getattr(public, each) for each in public.__all__}
        globals().update(offered, __all__=public.__all__)
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        """Name everything there is."""
        return sorted(import_module("._public", __name__).__all__)
