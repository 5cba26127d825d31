"""Hostile inputs without end: whole ones that are cut, joined, repeated and changed where it hurts."""

import random
from collections.abc import Sequence

__all__ = ["Mutator"]

NUMBERS = [0, 1, 2, 3, 4, 5, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1]
LONGEST = 2000
"""Bytes of what is made; now and then it is a hundred times as long."""


class Mutator:
    """Makes input after input of a few good ones.

    Args:
        seed: gives the same inputs for the same number.
        good: inputs that are taken as they are.
        parts: what they are made of, to be put in anywhere.
    """

    def __init__(self, seed: object, good: Sequence[bytes], parts: Sequence[bytes]) -> None:
        self.rng = random.Random(f"{seed}")
        self._good = list(good)
        self._parts = [*parts, b"\0", b"\xff", b"\xc3", b"\xe2\x80\xae", b"\xed\xa0\x80", b"\r\n"]

    def next(self) -> bytes:
        """Make one."""
        rng = self.rng
        data = bytearray(rng.choice(self._good))
        for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
            self._change(data)
        if rng.random() < 0.0005:
            data *= 100
        return bytes(data[: LONGEST if rng.random() < 0.999 else 100 * LONGEST])

    def pieces(self, data: bytes) -> list[bytes]:
        """Cut it into at most four."""
        cuts = sorted(self.rng.randint(0, len(data)) for _ in range(self.rng.randint(0, 3)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def _change(self, data: bytearray) -> None:
        rng = self.rng
        at = rng.randint(0, len(data))
        size = min(rng.choice((1, 1, 2, 4, 16)), len(data) - at)
        match rng.randrange(8):
            case 0 if size:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size] * rng.choice((1, 2, 50))
            case 3:
                data[at:at] = rng.choice(self._parts) * rng.choice((1, 1, 1, 9))
            case 4:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 9)))
            case 5:
                data[at:] = rng.choice(self._good)[rng.randint(0, at) :]
            case 6:
                width = rng.choice((1, 2, 4))
                data[at : at + width] = (rng.choice(NUMBERS) % 256**width).to_bytes(width, "big")
            case _:
                data += rng.choice(self._good)
