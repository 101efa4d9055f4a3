"""The pieces that a shard is sent in: cut to size, and checksummed each by itself and as a whole.

A CRC is linear over GF(2): that of two parts joined follows from theirs and the second one's length. So each
thread takes the checksum of what it has just written, in turns short enough for whoever else wants the
interpreter, and none has to read a whole shard again.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final, NamedTuple

import google_crc32c
import numpy as np

from atomstream.records import Piece
from atomstream.system.scheduling import split_piece

_POLYNOMIAL: Final = 0x82F63B78
"""Castagnoli's, reflected (RFC 3720, B.4)."""

_CRC_STEP: Final = 1 << 20
"""Bytes between two chances for other threads: the checksum holds the GIL, 0.1 ms a MiB."""


class Crc32c(NamedTuple):
    """The CRC-32C of ``nbytes`` bytes."""

    crc32c: int
    nbytes: int

    def then(self, other: Crc32c) -> Crc32c:
        """The sum of these bytes and the other's after them (zlib's ``crc32_combine``, by its matrices)."""
        crc, left, power = self.crc32c, other.nbytes, 0
        while left:
            if left & 1:
                crc = _times(_zero_bytes(power), crc)
            left, power = left >> 1, power + 1
        return Crc32c(crc ^ other.crc32c, self.nbytes + other.nbytes)


def _times(matrix: tuple[int, ...], vector: int) -> int:
    """A matrix over GF(2), given by its columns, times a vector of bits."""
    product = 0
    for column in matrix:
        if vector & 1:
            product ^= column
        vector >>= 1
    return product


@cache
def _zero_bytes(power: int) -> tuple[int, ...]:
    """What 2**power zero bytes after it do to a CRC."""
    if power == 0:
        return tuple(_one_zero_byte(1 << bit) for bit in range(32))
    half = _zero_bytes(power - 1)
    return tuple(_times(half, column) for column in half)


def _one_zero_byte(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


def crc32c_of(pieces: Iterable[Piece]) -> int:
    """The CRC-32C of the pieces' bytes joined."""
    crc = 0
    for piece in pieces:
        for part in split_piece(piece, _CRC_STEP):
            # It takes bytes and arrays, but no memoryview.
            crc = google_crc32c.extend(
                crc, part if isinstance(part, bytes) else np.frombuffer(part, dtype=np.uint8)
            )
    return crc
