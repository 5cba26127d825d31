"""What the outbox does with files beside SQLite, so that a failing disk can stand in for it."""

from __future__ import annotations

import os
import shutil

__all__ = ["Files"]


class Files:
    """The files of this machine. All calls block."""

    def create(self, path: str) -> None:
        """Make an empty file that its owner alone may read, if there is none."""
        flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        if not os.path.lexists(path):
            os.close(os.open(path, flags, 0o600))

    def identity(self, path: str) -> tuple[int, int] | None:
        """Tell one file from another that takes its place; None if there is none."""
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def size(self, path: str) -> int:
        """Return the length in bytes; 0 if there is none."""
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return 0

    def read(self, path: str, most: int = -1) -> bytes:
        """Return the content; empty if there is none.

        Reading a file through which this process holds locks would end them: SQLite must have closed it.
        """
        try:
            with open(path, "rb") as file:
                return file.read(most)
        except FileNotFoundError:
            return b""

    def rewrite(self, path: str) -> None:
        """Put a durable copy in the place of a file that may hold what never reached the disk."""
        copy = f"{path}-copy"
        try:
            shutil.copy2(path, copy)
            with open(copy, "rb+") as file:
                os.fsync(file.fileno())
            self.replace(copy, path)
        except PermissionError:
            # Windows replaces no file that is open, and writes through.
            self.remove(copy)

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file durably, or nothing of it."""
        copy = f"{path}-copy"
        self.remove(copy)
        self.create(copy)
        with open(copy, "rb+") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.replace(copy, path)

    def replace(self, old: str, new: str) -> None:
        """Give a file another name, durably, in the place of one that has it."""
        os.replace(old, new)
        self.sync_folder(new)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        if os.path.lexists(path):
            os.remove(path)

    def sync_folder(self, path: str) -> None:
        """Make the names beside a file durable."""
        if os.name == "nt":
            return  # Windows cannot open a directory, and writes names through
        fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
