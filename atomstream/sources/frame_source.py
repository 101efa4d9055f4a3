"""Interface of all sources of recorded frames, and their common checks."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from atomstream.checks import integer_in_range
from atomstream.errors import ConfigError
from atomstream.records import Frames

Times: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]


class EmptySourceError(ConfigError):
    """A recording holds no whole frame; one that is still being written may hold some later."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Consecutive frames of a recording that can't be read."""

    frame: int
    """Number of the first missing frame; the recording begins with 0."""
    frames: int | None
    """Number of missing frames; None: all to the end, and the recording does not state how many."""
    file: str
    """The damaged file."""
    byte: int | None
    """Where the damage begins in the file; None if that is not known."""
    reason: str

    def __str__(self) -> str:
        where = f" from byte {self.byte}" if self.byte is not None else ""
        return f"{_numbers(self.frame, self.frames)} of {self.file}{where}: {self.reason}"


@dataclass(frozen=True, slots=True, eq=False)
class SourceChunk:
    """Consecutive frames of a source: ``frames`` is C-contiguous (n, H, W).

    ``times_s`` (n,) are times in s from the first frame of the source, None if the file has none. ``indices`` (n,)
    are the numbers of the frames in the recording, which begins with 0; they jump where frames can't be read. None:
    the frames follow those of the chunk before.
    """

    frames: Frames
    times_s: Times | None = None
    indices: Indices | None = None


@runtime_checkable
class FrameSource(Protocol):
    """Recorded frames, read chunk by chunk; each call of :meth:`chunks` begins at the first frame."""

    @property
    def name(self) -> str:
        """Name for messages, usually the path."""

    @property
    def n_frames(self) -> int | None:
        """Number of frames; None if it is not known before reading."""

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W) of every frame."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """``uint8`` or ``uint16``."""

    @property
    def fps(self) -> float | None:
        """Frame rate in 1/s; None if the file has none."""

    @property
    def gaps(self) -> Sequence[Gap]:
        """Frames that the last reading left out because they can't be read, with ``skip_damaged``."""

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all frames in order, at most ``chunk_size`` (>= 1) at a time, only the last chunk shorter."""


def _numbers(first: int, count: int | None) -> str:
    if count is None:
        return f"frame {first} and all after it"
    return f"frame {first}" if count == 1 else f"frames {first} to {first + count - 1}"


def first_chunk(source: FrameSource) -> SourceChunk | None:
    """Read the first frame of ``source``, and close what reading opened; None if there is none."""
    chunks = source.chunks(1)
    try:
        return next(chunks, None)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def checked_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the native form of uint8 or uint16; :class:`ConfigError` for anything else."""
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return dtype.newbyteorder("=")
    raise ConfigError(
        f"{name} holds {dtype} pixels; uint8 and uint16 can be streamed: load it, convert it with "
        "atomstream.sources.to_uint8(frames, low, high) and stream the array"
    )


def checked_stack(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (n, H, W) of a stack or one frame. Raises :class:`ConfigError` for colour and other shapes."""
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) == 4 and shape[-1] in (3, 4):
        raise ConfigError(f"{name} contains colour frames {shape}; convert them to grey first, as (n, H, W)")
    if len(shape) != 3:
        raise ConfigError(f"{name} has the shape {shape}; frames are (n, H, W), or (H, W) for one")
    if 0 in shape:
        raise EmptySourceError(f"{name} is empty: its shape is {shape}")
    return (shape[0], shape[1], shape[2])


def checked_chunk_size(chunk_size: int) -> int:
    """Return ``chunk_size`` if it is at least 1. Raises :class:`ConfigError` if not, or TypeError."""
    return integer_in_range("chunk_size", chunk_size, 1, 1 << 31)


def optional_package(package: str, extra: str, purpose: str) -> Any:
    """Import an optional package. Raises ConfigError with the pip command if it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{purpose} needs the package {package!r} ({error}): pip install 'atomstream[{extra}]'"
        ) from error
