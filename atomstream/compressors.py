"""Which zstd parameters suit a camera's frames: the picture itself decides, on its first frame.

A noisy frame has no matches worth finding: nearly all of the gain is in the Huffman-coded literals, and the
match finder's hash table costs time and, by chance matches, even bytes. A table of 64 entries makes level 1
two to three times as fast at the same size. A window of 32 KiB makes zstd's blocks as short, a few tens of
rows, so that each part of the picture has a code table of its own: 2 to 13 per cent fewer bytes on noisy
pictures, where no level of zstd's own comes near. A smooth or repeating picture, or a 16-bit one, wants
zstd's own level.
So from level 0 up a first frame is compressed with each candidate, fastest first, and the first one within
``TOLERANCE`` of the smallest is used, for as long as first frames of later chunks stay as compressible.
Level 0 is zstd's default (3); negative ones are zstd's own, for who wants speed at any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import zstandard

TOLERANCE: Final = 0.01
_DRIFT: Final = 0.02
_HASH_LOGS: Final = (6, 10)
_WINDOW_LOG: Final = 15
_MIN_MATCH: Final = 7


class FrameCompressor:
    """Compresses frames at ``level``, each as one zstd frame with content size and checksum.

    Holds zstd contexts, which are not for simultaneous use: one a thread.
    """

    def __init__(self, level: int = 1) -> None:
        full = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
        self._candidates = [*map(_fast, _HASH_LOGS), full] if level >= 0 else [full]
        self._chosen = self._candidates[0]
        self._ratio = 0.0  # of the frame that the choice was made on

    def compress(self, views: Sequence[memoryview]) -> Iterator[bytes]:
        """One zstd frame for each view; the GIL is released while each is made.

        Each holds the memory of the most that it might have had, twice its length: copy it away before the next.
        """
        yield self._first(views[0])
        yield from map(self._chosen.compress, views[1:])

    def checksum(self, view: memoryview) -> bytes:
        """The content checksum (4 bytes) that the view's zstd frame ends with, whatever the parameters."""
        return self._candidates[0].compress(view)[-4:]

    def _first(self, view: memoryview) -> bytes:
        body = self._chosen.compress(view)
        if abs(view.nbytes / len(body) - self._ratio) <= _DRIFT * self._ratio:
            return body
        bodies = [candidate.compress(view) for candidate in self._candidates]
        limit = min(map(len, bodies)) * (1.0 + TOLERANCE)
        best = next(k for k, body in enumerate(bodies) if len(body) <= limit)
        self._chosen, self._ratio = self._candidates[best], view.nbytes / len(bodies[best])
        return bodies[best]


def _fast(hash_log: int) -> zstandard.ZstdCompressor:
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
    return zstandard.ZstdCompressor(compression_params=parameters)
