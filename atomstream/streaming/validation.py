"""Validation of what a caller pushes, and iteration over what ``run`` gets.

Everything is checked before it is copied, so an error leaves the stream unchanged. No pixel is converted silently.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.checks import integer_in_range, number_in_range
from atomstream.errors import ConfigError
from atomstream.frame_counter import known_id
from atomstream.frame_shape import is_one_picture
from atomstream.protocol import MAX_CHUNK_INDEX, MAX_SHARD_BYTES, MAX_TIME_MS
from atomstream.records import FrameMeta, Frames, StreamSpec, Timestamp

_MIN_TIME_MS: Final = 0.0

_EARLIEST_MS: Final = 631_152_000_000.0
"""The year 1990 in UTC milliseconds. An earlier capture time is allowed, but probably given in another unit."""

MAX_INDEX_JUMP: Final = 100_000
"""Largest number of chunk indices that may be skipped at once: more than two days of 2 s chunks. Each skipped one
becomes a line of the report."""


def check_chunk(frames: Any, spec: StreamSpec) -> Frames:
    """Return the frames with shape (N, H, W), without a copy.

    Raises:
        TypeError: it is not an array, or the server of this stream does not accept its dtype.
        ValueError: the shape is not (N, H, W) or (H, W), it is empty, or there are more than ``chunk_size`` frames.
    """
    array = _check_array(frames, spec)
    if array.ndim == 2:
        array = array[np.newaxis]
    if len(array) > spec.chunk_size:
        raise ValueError(
            f"{len(array)} frames are more than the stream's chunk_size of {spec.chunk_size}. "
            "Push at most chunk_size at a time; run() splits larger arrays automatically."
        )
    _check_size(len(array), array[0])
    return array


def check_item(frames: Any, spec: StreamSpec) -> Frames:
    """As :func:`check_chunk`, for any number of frames. A single frame keeps its shape (H, W)."""
    array = _check_array(frames, spec)
    if array.ndim == 3:
        _check_size(min(len(array), spec.chunk_size), array[0])
    return array


def check_frame(frame: Any, spec: StreamSpec) -> Frames:
    """Return one frame of shape (H, W), without a copy.

    Raises:
        TypeError, ValueError: as :func:`check_chunk`.
    """
    if type(frame) is np.ndarray and frame.ndim == 2 and frame.dtype == np.uint8 and frame.size:
        array: Frames = frame  # the usual case, without further checks: it runs for every frame
    else:
        array = _as_array(frame)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]  # vmbpy and others give (H, W, 1); it is one frame in any case
        array = _check_array(array, spec)
    if array.ndim != 2:
        raise ValueError(f"push_frame takes one frame of shape (H, W), not {array.shape}; push takes chunks.")
    _check_size(spec.chunk_size, array)
    return array


def _check_size(n_frames: int, frame: Frames) -> None:
    if n_frames * frame.nbytes > MAX_SHARD_BYTES:
        height, width = frame.shape
        raise ValueError(
            f"A chunk of {n_frames} frames of {height}x{width} {frame.dtype} has {n_frames * frame.nbytes / 1e6:.0f} "
            f"MB, but a server accepts at most {MAX_SHARD_BYTES / 1e6:.0f} MB. Initialize the stream with a smaller "
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
            "Frames must be uint8 for this server, not uint16 (only an atomstream server accepts 16 bits): convert "
            "them with atomstream.sources.to_uint8(frames, low, high), which scales low..high to 0..255."
        )
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]  # one sample per pixel, as some cameras state it
    if array.ndim not in (2, 3) or is_one_picture(array.shape):
        raise ValueError(f"Frames must have shape (N, H, W) or (H, W), not {array.shape}{_advice(array)}")
    if array.size == 0:
        raise ValueError(f"Frames of shape {array.shape} have no pixels; N, H and W must be at least 1.")
    return array


def _advice(array: npt.NDArray[Any]) -> str:
    if array.ndim == 3 and array.shape[2] == 1:
        return ": this is one picture with one sample per pixel; push frame[..., 0]."
    if array.ndim in (3, 4) and array.shape[-1] == 2:
        return ": this is a picture with two samples per pixel; push one of them, such as frame[..., 0]."
    if array.ndim in (3, 4) and array.shape[-1] in (3, 4):
        return (
            ": these are colours; push one of them (frame[..., 1]) or their mean, or set the camera to a "
            "monochrome format such as Mono8."
        )
    return "."


def _as_array(frames: Any) -> npt.NDArray[Any]:
    if _is_masked(frames):
        raise TypeError(
            "Frames are a masked array: fill it first (frames.filled(0)), because masks are not sent."
        )
    if isinstance(frames, np.ndarray):
        return np.asarray(frames)
    if hasattr(frames, "__array__") or hasattr(frames, "__array_interface__"):
        return np.asarray(frames)
    hint = (
        ": np.stack(frames) makes an array of a list of frames" if isinstance(frames, (list, tuple)) else ""
    )
    raise TypeError(f"Frames must be a numpy array of uint8, not {type(frames).__name__}{hint}.")


def _is_masked(frames: Any) -> bool:
    # numpy imports numpy.ma at its first use, which takes 13 to 20 ms. Until then there can be no masked array.
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(frames, masked.MaskedArray)


def check_index(chunk_idx: Any, next_index: int) -> int:
    """Return the chunk index, an integer from 0 to ``MAX_INDEX_JUMP`` above the stream's next one.

    Raises:
        TypeError: it is not an integer. ConfigError (a ValueError): it is out of range.
    """
    index = integer_in_range("chunk_idx", chunk_idx, 0, MAX_CHUNK_INDEX)
    if index > next_index + MAX_INDEX_JUMP:
        raise ConfigError(
            f"chunk_idx={index} is more than {MAX_INDEX_JUMP} above the stream's next index ({next_index}): "
            "so many chunks would be missing. Is it the number of a frame? Nothing was pushed."
        )
    return index


def check_capture_ms(value: Any, name: str = "capture_start_ms_utc") -> float | None:
    """Return a capture time in milliseconds since 1970 (UTC), or None.

    Raises:
        TypeError: it is not a number. ConfigError (a ValueError): it is not between 1970 and 2100.
    """
    return None if value is None else number_in_range(name, value, _MIN_TIME_MS, MAX_TIME_MS)


def warn_if_too_early(capture_ms: float, data_id: str, stacklevel: int) -> bool:
    """Warn if a capture time in UTC ms is before 1990 (probably it is in seconds); return True if it is.

    ``stacklevel`` 1 is the caller of this function.
    """
    if capture_ms >= _EARLIEST_MS:
        return False
    date = datetime.fromtimestamp(capture_ms / 1000.0, UTC).date()
    hint = " Is it in seconds? Multiply it by 1000." if capture_ms >= 1e-3 * _EARLIEST_MS else ""
    warnings.warn(
        f"The capture time {capture_ms:g} of stream {data_id} is {date} in milliseconds since 1970.{hint} It is sent "
        "as given, and the growth gets this date.",
        stacklevel=stacklevel + 1,
    )
    return True


def check_meta(
    n_frames: int,
    frame_times_ms: Sequence[float] | None,
    frame_ids: Sequence[int] | None,
    angles_deg: Sequence[float] | None,
) -> FrameMeta:
    """Return the data per frame of a chunk: times in UTC ms, ids, angles in degrees; each None or N values.

    Raises:
        TypeError, ValueError: the number of values is not N, or a value is not a finite number.
    """
    return FrameMeta(
        times_ms=_column("frame_times_ms", frame_times_ms, n_frames, _time),
        ids=_column("frame_ids", frame_ids, n_frames, check_frame_id),
        angles_deg=_column("angles_deg", angles_deg, n_frames, check_angle),
    )


def check_frame_id(value: Any) -> int:
    """Return the camera's counter of a frame, an integer of 64 bits; -1 (not known) for counters that int64 can't
    hold."""
    return known_id(integer_in_range("frame_id", value, -(2**63), 2**64 - 1))


def check_angle(value: Any) -> float:
    """Return an angle in degrees, -1e9 to 1e9."""
    return number_in_range("angle_deg", value, -1e9, 1e9)


def _time(value: Any) -> float:
    return number_in_range("frame_times_ms", value, _MIN_TIME_MS, MAX_TIME_MS)


def _column(name: str, values: Any, n_frames: int, check: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    if values is None:
        return None
    if not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a list with one value per frame, not {values!r}.")
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(items) != n_frames:
        raise ValueError(f"{name} has {len(items)} values for {n_frames} frames; it must have one per frame.")
    return tuple(check(item) for item in items)


_END: Final = object()
"""Marks the end of an iterator; StopIteration can't pass through a future."""


async def iterate(source: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """Yield the items of ``source``. A synchronous iterable runs in its own thread, because it may sleep.

    Raises:
        TypeError: ``source`` is not iterable. Errors that ``source`` raises are raised unchanged.
    """
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
        return
    if not isinstance(source, Iterable):
        raise TypeError(f"run() takes an iterable of frames, not {type(source).__name__}.")
    async with aclosing(
        _iterate_in_thread(iter(source))
    ) as items:  # otherwise its thread runs until garbage collection
        async for item in items:
            yield item


async def _iterate_in_thread(iterator: Iterator[Any]) -> AsyncGenerator[Any, None]:
    # One thread for all items: the handle of a camera often works only in the thread that used it first.
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1, thread_name_prefix="atomstream-run")
    try:
        while (item := await loop.run_in_executor(executor, next, iterator, _END)) is not _END:
            yield item
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def split(array: Frames, timestamp: Timestamp, spec: StreamSpec) -> Iterator[tuple[Frames, Timestamp]]:
    """Split (N, H, W) into chunks of at most ``chunk_size`` frames, each with the capture time of its first frame."""
    for start in range(0, len(array), spec.chunk_size):
        chunk_timestamp = replace(timestamp, start_ms=timestamp.start_ms + 1000.0 * start / spec.fps)
        yield array[start : start + spec.chunk_size], chunk_timestamp
