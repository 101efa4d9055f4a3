"""Decoding of many frames of a stored shard at once, for readers of long parts of a stream.

:func:`~atomstream.shard.iter_frames` needs about 10 µs of Python for each frame, which is more than zstd itself needs
for a small one. Here zstd decodes a batch of frames in one call, without the interpreter lock and on several cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zstandard

from atomstream.records import Frames
from atomstream.shard.decoder import MOST_RATIO, ShardLayout, iter_frames, longest_encoding
from atomstream.shard.format import Buffer, Fetch, Index, frame_nbytes

BATCH_BYTES: Final = 4 << 20
"""Decoded bytes of one batch, unless one frame for each thread has more."""

THREAD_BYTES: Final = 1 << 19
"""Fewest decoded bytes for a thread: to start one takes about 50 µs."""

READ_OVER: Final = 1 << 15
"""Bytes between two wanted frames that are read too, because one long read is faster than two short ones."""


def decode_frames(
    fetch: Fetch, layout: ShardLayout, wanted: Sequence[int], out: Frames, threads: int = 1
) -> None:
    """Decode the frames ``wanted`` into ``out``, a contiguous array (len(wanted), H, W). Absent frames become 0.

    The shard must be one that :func:`iter_frames` has accepted before, as every stored one. The only thing that is not
    checked again is that an inner chunk has no second zstd frame.

    Raises:
        ShardError: a frame is damaged, or its decoded size is not H * W.
    """
    places = np.asarray(wanted, dtype=np.int64)
    size = frame_nbytes(layout.dims, layout.dtype)
    per_batch = max(threads, BATCH_BYTES // size)
    for first in range(0, len(places), per_batch):
        part, piece = places[first : first + per_batch], out[first : first + per_batch]
        if not _decode_batch(fetch, layout.index[part], size, piece, threads):
            _decode_singly(fetch, layout, part, piece)


def _decode_batch(fetch: Fetch, entries: Index, size: int, out: Frames, threads: int) -> bool:
    """Decode the frames with these index ``entries`` in one call of zstd; False if that is impossible."""
    decompressor = zstandard.ZstdDecompressor()
    if len(entries) < 2 or not hasattr(
        decompressor, "multi_decompress_to_buffer"
    ):  # PyPy's zstandard has none
        return False
    lengths = entries[:, 1]  # those of absent frames are too long
    if ((lengths > longest_encoding(size)) | (lengths < size / MOST_RATIO)).any():
        return False
    encoded = _encoded(fetch, entries)
    if encoded is None:
        return False
    try:
        decoded = decompressor.multi_decompress_to_buffer(
            encoded,
            decompressed_sizes=np.full(len(entries), size, dtype=np.uint64).tobytes(),
            threads=max(1, min(threads, len(entries) * size // THREAD_BYTES)),
        )
    except (zstandard.ZstdError, ValueError):  # decoding one by one tells which frame is damaged
        return False
    target = out.reshape(-1).view(np.uint8).data
    for k in range(len(entries)):
        target[k * size : (k + 1) * size] = memoryview(decoded[k])  # type: ignore[arg-type]  # it is a buffer
    return True


def _encoded(fetch: Fetch, entries: Index) -> Any:
    """The encoded frames in a form that zstd takes; None if the shard ends before one of them."""
    segments: npt.NDArray[np.uint64] = entries.astype("<u8")
    begin, end = int(entries[:, 0].min()), int(entries.sum(axis=1).max())
    if end - begin > int(entries[:, 1].sum()) + READ_OVER * len(entries):
        pieces: list[Buffer] = [fetch(offset, nbytes) for offset, nbytes in entries.tolist()]
        return pieces if [len(piece) for piece in pieces] == entries[:, 1].tolist() else None
    data: Any = fetch(begin, end - begin)
    segments[:, 0] -= np.uint64(begin)
    return zstandard.BufferWithSegments(data, segments.tobytes()) if len(data) == end - begin else None


def _decode_singly(fetch: Fetch, layout: ShardLayout, places: npt.NDArray[np.int64], out: Frames) -> None:
    out[...] = 0
    for row, place in enumerate(places.tolist()):
        for _, frame in iter_frames(fetch, layout, range(place, place + 1)):
            out[row] = frame
