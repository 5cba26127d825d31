"""A program that writes numbered lines without a pause and rotates its file: KIND PATH ROTATIONS LINES.

Before the first rotation, and before each after which the file could not be found any more, it waits for a
line on its standard input, by which the reader says that it has begun the file. It prints how many lines it
has written.
"""

import gzip
import os
import shutil
import sys
import time

LATE = 7
"""Lines that a writer adds to a renamed file when the new one is there."""


class Rotator:
    """Writes one file and rotates it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.generation = 0
        self.number = 0
        self.begun = 0
        """Files that were begun before this one."""
        self.out = self.open(path)

    def open(self, path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, count: int) -> None:
        """Write lines."""
        for _ in range(count):
            # In two writes now and then: a line without its end is no line yet.
            text = f'{{"n":{self.number},"generation":{self.begun}}}\n'.encode()
            middle = 7 if self.number % 5 == 0 else len(text)
            os.write(self.out, text[:middle])
            if text[middle:]:
                os.write(self.out, text[middle:])
            self.number += 1

    def shift(self) -> None:
        """Rename ``PATH.1`` to ``PATH.2`` and so on."""
        for number in range(self.generation, 0, -1):
            os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        self.generation += 1

    def renamed(self) -> None:
        self.shift()
        os.rename(self.path, f"{self.path}.1")
        following = self.open(self.path)
        # What has the file open goes on with it for a moment, in which the reader looks twice.
        time.sleep(0.005)
        self.write(LATE)
        os.close(self.out)
        self.out = following

    def copied(self) -> None:
        self.shift()
        shutil.copyfile(self.path, f"{self.path}.1")
        os.truncate(self.path, 0)

    def replaced(self) -> None:
        os.close(self.out)
        self.out = self.open(f"{self.path}.new")
        os.replace(f"{self.path}.new", self.path)

    def removed(self) -> None:
        os.remove(self.path)
        os.close(self.out)
        self.out = self.open(self.path)

    def gzipped(self) -> None:
        os.rename(self.path, f"{self.path}.1")
        os.close(self.out)
        self.out = self.open(self.path)
        with open(f"{self.path}.1", "rb") as source, gzip.open(f"{self.path}.1.gz", "wb") as target:
            shutil.copyfileobj(source, target)
        os.remove(f"{self.path}.1")

    def switched(self) -> None:
        self.generation += 1
        target = f"{self.path}-target-{self.generation}"
        os.close(self.out)
        self.out = self.open(target)
        os.symlink(target, f"{self.path}.link")
        os.replace(f"{self.path}.link", self.path)


def main(kind: str, path: str, rotations: int, lines: int) -> None:
    """Write `lines` lines to each of the files."""
    if kind == "switched":
        os.symlink(f"{path}-target-0", path)
    rotator = Rotator(path)
    while rotator.begun < rotations:
        rotator.write(lines - LATE if kind == "renamed" else lines)
        if not rotator.begun or kind not in ("renamed", "copied"):
            sys.stdin.readline()
        getattr(rotator, kind)()
        rotator.begun += 1
    rotator.write(lines)
    sys.stdout.write(f"{rotator.number}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
