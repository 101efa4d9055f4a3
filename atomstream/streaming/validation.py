"""What a caller may push, checked before anything is held: a clear error, and nothing is lost (P1, P2)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.config import (
    MAX_CHUNK_INDEX,
    MAX_INDEX_JUMP,
    MAX_SHARD_BYTES,
    integer_in_range,
    number_in_range,
)
from atomstream.errors import ConfigError
from atomstream.records import FrameMeta, Frames, StreamSpec, Timestamp

_EARLIEST_MS = 0.0

_LATEST_MS = 4_102_444_800_000.0  # the year 2100: beyond it somebody passed microseconds


def check_chunk(frames: Any, spec: StreamSpec) -> Frames:
    """``frames`` as (N, H, W), not copied.

    Raises:
        TypeError: not an array, or of a dtype that this stream's server does not take.
        ValueError: not (N, H, W) or (H, W), empty, or more frames than ``chunk_size``.
    """
    array = _check_array(frames, spec)
    if array.ndim == 2:
        array = array[np.newaxis]
    if len(array) > spec.chunk_size:
        raise ValueError(
            f"{len(array)} frames are more than the stream's chunk_size of {spec.chunk_size}. "
            "Push at most chunk_size at a time; run() splits larger arrays by itself."
        )
    _check_size(len(array), array[0])
    return array


def check_item(frames: Any, spec: StreamSpec) -> Frames:
    """As :func:`check_chunk`, of any number of frames; a single one keeps its shape (H, W)."""
    array = _check_array(frames, spec)
    if array.ndim == 3:
        _check_size(min(len(array), spec.chunk_size), array[0])
    return array


def check_frame(frame: Any, spec: StreamSpec) -> Frames:
    """One frame of shape (H, W).

    Raises:
        TypeError, ValueError: as :func:`check_chunk`.
    """
    if type(frame) is np.ndarray and frame.ndim == 2 and frame.dtype == np.uint8 and frame.size:
        array: Frames = frame  # the 120 times a second path
    else:
        array = _check_array(frame, spec)
    if array.ndim != 2:
        raise ValueError(f"push_frame takes one frame of shape (H, W), not {array.shape}; push takes chunks.")
    _check_size(spec.chunk_size, array)
    return array


def _check_size(n_frames: int, frame: Frames) -> None:
    if n_frames * frame.nbytes > MAX_SHARD_BYTES:
        height, width = frame.shape
        raise ValueError(
            f"A chunk of {n_frames} frames of {height}x{width} {frame.dtype} has {n_frames * frame.nbytes / 1e6:.0f} "
            f"MB, but a server takes {MAX_SHARD_BYTES / 1e6:.0f} MB at most. Initialize the stream with a smaller "
            "chunk_size."
        )


def _check_array(frames: Any, spec: StreamSpec) -> Frames:
    array = _as_array(frames)
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise TypeError(
            f"Frames must be uint8, not {array.dtype}: nothing is cast silently. Convert them with "
            "atomstream.sources.to_uint8(frames, low, high), which scales low..high to 0..255."
        )
    if array.dtype.itemsize == 2 and not spec.announced:
        raise TypeError(
            "Frames must be uint8 for this server, not uint16 (only an atomstream server takes 16 bit): convert "
            "them with atomstream.sources.to_uint8(frames, low, high), which scales low..high to 0..255."
        )
    if array.ndim not in (2, 3):
        raise ValueError(
            f"Frames must have shape (N, H, W) or (H, W), not {array.shape}"
            + (": colour frames must be made gray first." if array.ndim == 4 else ".")
        )
    if array.size == 0:
        raise ValueError(f"Frames of shape {array.shape} hold no pixel; N, H and W must be at least 1.")
    return array


def _as_array(frames: Any) -> npt.NDArray[Any]:
    if _is_masked(frames):
        raise TypeError(
            "Frames are a masked array: fill it first (frames.filled(0)), for masks are not sent."
        )
    if isinstance(frames, np.ndarray):
        return np.asarray(frames)
    if hasattr(frames, "__array__") or hasattr(frames, "__array_interface__"):
        return np.asarray(frames)
    hint = ": np.stack(frames) makes one of a list of frames" if isinstance(frames, (list, tuple)) else ""
    raise TypeError(f"Frames must be a numpy array of uint8, not {type(frames).__name__}{hint}.")


def _is_masked(frames: Any) -> bool:
    # numpy loads that part of itself when it is named: 13 to 20 ms of a first push, for what nobody can have without.
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(frames, masked.MaskedArray)


def check_index(chunk_idx: Any, next_index: int) -> int:
    """A chunk index: a whole number from 0, not absurdly far beyond the stream's next one.

    Raises:
        TypeError, ValueError: it is not.
    """
    index = integer_in_range("chunk_idx", chunk_idx, 0, MAX_CHUNK_INDEX)
    if index > next_index + MAX_INDEX_JUMP:
        raise ConfigError(
            f"chunk_idx={index} is over {MAX_INDEX_JUMP} chunks beyond the stream's next one ({next_index}), "
            "which would leave that many holes in the growth. Is it a frame's number? Nothing was taken."
        )
    return index


def check_capture_ms(value: Any, name: str = "capture_start_ms_utc") -> float | None:
    """A capture time in UTC milliseconds, or None.

    Raises:
        TypeError, ValueError: not a number, or no time that a camera can have.
    """
    return None if value is None else number_in_range(name, value, _EARLIEST_MS, _LATEST_MS)


def check_meta(
    n_frames: int,
    frame_times_ms: Sequence[float] | None,
    frame_ids: Sequence[int] | None,
    angles_deg: Sequence[float] | None,
) -> FrameMeta:
    """Per-frame data of a chunk, each None or of N entries.

    Raises:
        TypeError, ValueError: another length, or entries that are not finite numbers.
    """
    return FrameMeta(
        times_ms=_column("frame_times_ms", frame_times_ms, n_frames, _time),
        ids=_column("frame_ids", frame_ids, n_frames, check_frame_id),
        angles_deg=_column("angles_deg", angles_deg, n_frames, check_angle),
    )


def check_frame_id(value: Any) -> int:
    """A camera's frame counter, within 64 bits."""
    return integer_in_range("frame_id", value, -(2**63), 2**63 - 1)


def check_angle(value: Any) -> float:
    """An angle in degrees, finite."""
    return number_in_range("angle_deg", value, -1e9, 1e9)


def _time(value: Any) -> float:
    return number_in_range("frame_times_ms", value, _EARLIEST_MS, _LATEST_MS)


def _column(name: str, values: Any, n_frames: int, check: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    if values is None:
        return None
    if not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a list with an entry for each frame, not {values!r}.")
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(items) != n_frames:
        raise ValueError(f"{name} has {len(items)} entries for {n_frames} frames; it wants one for each.")
    return tuple(check(item) for item in items)


# What ``run`` reads from: any iterable as an async one, and large items cut to chunks.

_END: Final = object()


async def iterate(source: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """The items of ``source``; a sync one is iterated in one thread of its own, for it may sleep.

    Raises:
        TypeError: not iterable. Else what ``source`` raises.
    """
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
        return
    if not isinstance(source, Iterable):
        raise TypeError(f"run() takes an iterable of frames, not {type(source).__name__}.")
    async with aclosing(_in_thread(iter(source))) as items:  # else its thread lives until it is collected
        async for item in items:
            yield item


async def _in_thread(iterator: Iterator[Any]) -> AsyncGenerator[Any, None]:
    # One thread for all items: camera handles and database cursors often belong to the thread of first use.
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1, thread_name_prefix="atomstream-run")
    try:
        while (item := await loop.run_in_executor(executor, next, iterator, _END)) is not _END:
            yield item
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def split(array: Frames, stamp: Timestamp, spec: StreamSpec) -> Iterator[tuple[Frames, Timestamp]]:
    """Cut (N, H, W) into chunks of at most ``chunk_size``, each with the stamp of its first frame."""
    for start in range(0, len(array), spec.chunk_size):
        later = replace(stamp, start_ms=stamp.start_ms + 1000.0 * start / spec.fps)
        yield array[start : start + spec.chunk_size], later
