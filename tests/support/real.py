"""Real counterparts: what a test needs to have on this machine, and ports and processes for it."""

import os
import shutil
import socket

import pytest

__all__ = ["find_program", "free_port", "require"]


def require(what: str, present: object, install: str) -> None:
    """Skip the test by name where a part is missing; fail it where the environment says all must be there.

    Args:
        what: the missing part, in words.
        present: false when it is missing: ``shutil.which(...)``, or a module that is None.
        install: how to get it.
    """
    if present:
        return
    message = f"{what} is not here; install it with: {install}"
    if os.environ.get("NEXUS_CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port of the loopback that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_program(*names: str) -> str | None:
    """Return the path of the first program found, also in the folders of system daemons; None for none."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)
