"""Which zstd parameters suit a camera's frames: the picture itself decides, on its first frame.

A noisy frame has no matches worth finding: all of the gain is in the Huffman-coded literals. Not to look for any
makes level 1 three times as fast, and by a hair smaller, for chance matches cost more bytes than they save.
A window of 32 KiB makes zstd's blocks as short, a few tens of rows, so that each part of the picture has a code
table of its own: 2 to 13 per cent fewer bytes on noisy pictures, where no level of zstd's own comes near. A smooth
or repeating picture, or a 16-bit one, wants zstd's own level.
So from level 0 up a first frame is compressed with each candidate, fastest first, and the first one within
``TOLERANCE`` of the smallest is used, for as long as first frames of later chunks stay as compressible.
Level 0 is zstd's default (3); negative ones are zstd's own, for who wants speed at any size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import zstandard

Compress: TypeAlias = Callable[[memoryview], bytes]

TOLERANCE: Final = 0.01
_DRIFT: Final = 0.02
_SMALL_TABLE, _TABLE = 6, 10  # log2 of a hash table's entries
_WINDOW_LOG: Final = 15
_MIN_MATCH: Final = 7
_STRIDE: Final = 1 << 17  # zstd's largest target length; no block has more, so no second place is looked at
_LITERALS_MODE: Final = 1002  # ZSTD_c_literalCompressionMode of zstd.h
_LITERALS_CODED: Final = 1  # ZSTD_ps_enable: else so long a stride switches their coding off


class FrameCompressor:
    """Compresses frames at ``level``, each as one zstd frame with content size and checksum.

    Holds zstd contexts, which are not for simultaneous use: one a thread.
    """

    def __init__(self, level: int = 1) -> None:
        full = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True).compress
        self._candidates: list[Compress] = [literals_only(), _fast(_TABLE), full] if level >= 0 else [full]
        self._chosen = self._candidates[0]
        self._ratio = 0.0  # of the frame that the choice was made on

    def compress(self, views: Sequence[memoryview]) -> Iterator[bytes]:
        """One zstd frame for each view; the GIL is released while each is made.

        Each holds the memory of the most that it might have had, twice its length: copy it away before the next.
        """
        yield self._first(views[0])
        yield from map(self._chosen, views[1:])

    def checksum(self, view: memoryview) -> bytes:
        """The content checksum (4 bytes) that the view's zstd frame ends with, whatever the parameters."""
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
    """zstd with Huffman codes and no search for matches; one with hardly a search where that can't be asked for.

    Only the standard library's module passes that parameter on; before Python 3.14 its backport does.
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
    # zstd's level 1 for such frames (strategy fast, matches of 7 and more), but for the hash table's size.
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
