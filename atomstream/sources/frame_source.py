"""What every source of recorded frames offers, and the checks that they share."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError
from atomstream.records import Frames

Times: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SourceChunk:
    """Consecutive frames of a source: ``frames`` is C-contiguous (n, H, W).

    ``times_s`` are their n times in seconds from the source's first frame, where the file holds them.
    """

    frames: Frames
    times_s: Times | None = None


@runtime_checkable
class FrameSource(Protocol):
    """Recorded frames, read chunk by chunk; each call of :meth:`chunks` begins at the first frame."""

    @property
    def name(self) -> str:
        """What to call it in messages: the path."""

    @property
    def n_frames(self) -> int | None:
        """How many frames there are; None where only reading tells."""

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W) of every frame."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """``uint8`` or ``uint16``."""

    @property
    def fps(self) -> float | None:
        """Frames a second, where the file says so."""

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all frames in order, at most ``chunk_size`` (>= 1) at a time, only the last chunk shorter."""


def checked_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the native form of uint8 or uint16; :class:`ConfigError` for anything else."""
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return dtype.newbyteorder("=")
    raise ConfigError(
        f"{name} holds {dtype} pixels; uint8 and uint16 can be streamed: load it, convert it with "
        "atomstream.sources.to_uint8(frames, low, high) and stream the array"
    )


def checked_stack(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (n, H, W) of a stack or one frame; :class:`ConfigError` for colour and other shapes."""
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) == 4 and shape[-1] in (3, 4):
        raise ConfigError(f"{name} holds colour frames {shape}; make them grey first, as (n, H, W)")
    if len(shape) != 3:
        raise ConfigError(f"{name} has the shape {shape}; frames are (n, H, W), or (H, W) for one")
    if 0 in shape:
        raise ConfigError(f"{name} is empty: its shape is {shape}")
    return (shape[0], shape[1], shape[2])


def checked_chunk_size(chunk_size: int) -> int:
    """Return it if it is at least 1; :class:`ConfigError` else."""
    if chunk_size < 1:
        raise ConfigError(f"chunk_size is {chunk_size}; it must be at least 1")
    return chunk_size


def refuse_dataset(name: str, dataset: str | None) -> None:
    """Refuse a ``dataset`` for a kind of file that holds only one."""
    if dataset is not None:
        raise ConfigError(f"{name} holds a single sequence of frames; leave out the dataset {dataset!r}")


def optional_package(package: str, extra: str, purpose: str) -> Any:
    """Import an optional package, or say in one sentence how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{purpose} needs the package {package!r} ({error}): pip install 'atomstream[{extra}]'"
        ) from error
