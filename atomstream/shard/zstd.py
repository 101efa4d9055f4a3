"""Chooses zstd parameters for camera frames, by compressing the first frame with each candidate.

A noisy frame contains no useful matches: all of the gain comes from Huffman coding of the literals. Without the
search for matches, level 1 is three times as fast, and the result is slightly smaller, because chance matches cost
more bytes than they save. A window of 32 KiB makes the zstd blocks equally short, a few tens of rows, so each part of
the picture gets its own code table. On noisy pictures this saves 2 to 13 %, which no standard zstd level reaches. A
smooth, repeating or 16-bit picture needs the standard level.

From level 0 up, a first frame is compressed with each candidate, the fastest first. The first candidate within
``TOLERANCE`` of the smallest result is used as long as the first frames of later chunks compress equally well. Level 0
is zstd's default (3). Negative levels are zstd's own, for users who prefer speed to size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import zstandard

Compress: TypeAlias = Callable[[memoryview], bytes]

TOLERANCE: Final = 0.01
"""The chosen candidate may be larger than the smallest one by this share."""

_DRIFT: Final = 0.02
"""The candidates are compared again once the compression ratio has changed by this share."""

_SMALL_TABLE, _TABLE = 6, 10
"""log2 of the number of hash table entries."""

_WINDOW_LOG: Final = 15

_MIN_MATCH: Final = 7

_STRIDE: Final = 1 << 17
"""The largest target length of zstd. No block is longer, so no second position is searched."""

_LITERALS_MODE: Final = 1002  # ZSTD_c_literalCompressionMode of zstd.h
_LITERALS_CODED: Final = 1  # ZSTD_ps_enable: by default such a long stride turns Huffman coding off


class FrameCompressor:
    """Compresses each frame to one zstd frame with content size and checksum.

    It holds zstd contexts, which must not be used by two threads at once: use one compressor per thread.
    """

    def __init__(self, level: int = 1) -> None:
        full = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True).compress
        self._candidates: list[Compress] = [literals_only(), _fast(_TABLE), full] if level >= 0 else [full]
        self._chosen = self._candidates[0]
        self._ratio = 0.0  # of the frame for which the candidate was chosen

    def compress(self, views: Sequence[memoryview]) -> Iterator[bytes]:
        """One zstd frame for each view. The GIL is released during compression.

        Each result holds the memory of the largest possible result, up to twice its size: copy it before the next one.
        """
        yield self._first(views[0])
        yield from map(self._chosen, views[1:])

    def checksum(self, view: memoryview) -> bytes:
        """The content checksum (4 bytes) at the end of the view's zstd frame. It does not depend on parameters."""
        return self._candidates[0](view)[-4:]

    def _first(self, view: memoryview) -> bytes:
        body = self._chosen(view)
        if abs(view.nbytes / len(body) - self._ratio) <= _DRIFT * self._ratio:
            return body
        bodies = [compress(view) for compress in self._candidates]
        limit = min(map(len, bodies)) * (1.0 + TOLERANCE)
        best = next(k for k, body in enumerate(bodies) if len(body) <= limit)
        self._chosen, self._ratio = self._candidates[best], view.nbytes / len(bodies[best])
        return bodies[best]


def literals_only() -> Compress:
    """A zstd compressor with Huffman coding but without a search for matches.

    Only the standard library's zstd module accepts that parameter (before Python 3.14: its backport). If it is
    missing or refuses the parameter, the result is a compressor with a very short search.
    """
    try:
        zstd = _standard_module()
    except ImportError:  # a Python that was built without zstd
        return _fast(_SMALL_TABLE)
    try:
        return _literals_only(zstd)
    except (ValueError, zstd.ZstdError):  # a zstd that refuses the parameter
        return _fast(_SMALL_TABLE)


def _standard_module() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _literals_only(zstd: Any) -> Compress:
    name = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(
        options={
            name.window_log: _WINDOW_LOG,
            name.hash_log: _SMALL_TABLE,
            name.chain_log: 6,
            name.search_log: 1,
            name.min_match: _MIN_MATCH,
            name.target_length: _STRIDE,
            name.strategy: zstd.Strategy.fast,
            name.checksum_flag: 1,
            name.content_size_flag: 1,
            _LITERALS_MODE: _LITERALS_CODED,
        }
    )
    whole = zstd.ZstdCompressor.FLUSH_FRAME
    return lambda view: compressor.compress(view, whole)


def _fast(hash_log: int) -> Compress:
    # As level 1 of zstd for such frames (strategy fast, matches of 7 or more), with another size of the hash table.
    parameters = zstandard.ZstdCompressionParameters(
        window_log=_WINDOW_LOG,
        hash_log=hash_log,
        chain_log=6,
        search_log=1,
        min_match=_MIN_MATCH,
        target_length=0,
        strategy=zstandard.STRATEGY_FAST,
        write_checksum=True,
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress
