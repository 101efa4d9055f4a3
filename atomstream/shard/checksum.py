"""The CRC-32C checksum of a shard that is made in pieces.

A CRC is linear over GF(2). So the CRC of two joined parts follows from their CRCs and the length of the second part.
Each thread computes the CRC of what it has just written, and no thread has to read a whole shard again.
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
"""The Castagnoli polynomial, reflected (RFC 3720, B.4)."""

_STEP_BYTES: Final = 1 << 20
"""Bytes per call of the CRC function. It holds the GIL for 0.1 ms per MiB; other threads can run between the calls."""


class Crc32c(NamedTuple):
    """The CRC-32C of ``nbytes`` bytes."""

    crc32c: int
    nbytes: int

    def combine(self, other: Crc32c) -> Crc32c:
        """The checksum of these bytes followed by the bytes of ``other``.

        The method is that of zlib's ``crc32_combine``: bit matrices of powers of two zero bytes.
        """
        crc, left, power = self.crc32c, other.nbytes, 0
        while left:
            if left & 1:
                crc = _multiply(_zero_bytes_matrix(power), crc)
            left, power = left >> 1, power + 1
        return Crc32c(crc ^ other.crc32c, self.nbytes + other.nbytes)


def crc32c_of(pieces: Iterable[Piece]) -> int:
    """The CRC-32C of the joined pieces."""
    crc = 0
    for piece in pieces:
        for part in split_piece(piece, _STEP_BYTES):
            # google_crc32c accepts bytes and arrays, but no memoryview.
            crc = google_crc32c.extend(
                crc, part if isinstance(part, bytes) else np.frombuffer(part, dtype=np.uint8)
            )
    return crc


def _multiply(matrix: tuple[int, ...], vector: int) -> int:
    """A matrix over GF(2), given by its columns, times a bit vector."""
    product = 0
    for column in matrix:
        if vector & 1:
            product ^= column
        vector >>= 1
    return product


@cache
def _zero_bytes_matrix(power: int) -> tuple[int, ...]:
    """The effect of 2**power appended zero bytes on a CRC, as a bit matrix."""
    if power == 0:
        return tuple(_append_zero_byte(1 << bit) for bit in range(32))
    half = _zero_bytes_matrix(power - 1)
    return tuple(_multiply(half, column) for column in half)


def _append_zero_byte(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc
