"""Frames from an array: in memory, or in a file that is read slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError
from atomstream.records import Frames

from .axes import Layout, Sliceable, layout
from .damage import FrameDamage, IndexedFrames, UnreadableFileError, decode_error
from .file_frames import FileFrames
from .frame_source import Gap, Times
from .options import ReadOptions
from .pixels import PixelFormat, PixelReader
from .times import SparseTimes, median_step, relative


class ArraySource(IndexedFrames):
    """Frames of an array, uint8 or uint16, read slice by slice; (n, H, W) or (H, W) unless ``axes`` states another
    order.

    ``axes``, ``channel``, ``levels`` and ``skip_damaged`` are those of :func:`open_source`. ``times_s`` (n,) are the
    times of the frames in s, which must not run backwards. A frame with the time NaN is a gap, as in an archive, and
    is skipped. ``pixels``, ``known_axes`` and ``scaling`` are what the file states about its samples and axes. Raises
    :class:`ConfigError` for other dtypes and shapes.
    """

    def __init__(
        self,
        array: Sliceable,
        *,
        name: str = "the array",
        fps: float | None = None,
        times_s: npt.ArrayLike | SparseTimes | None = None,
        axes: str | None = None,
        channel: str | None = None,
        levels: tuple[float, float] | None = None,
        pixels: PixelFormat | None = None,
        known_axes: str | None = None,
        scaling: str = "",
        skip_damaged: bool | None = None,
    ) -> None:
        for what in ("shape", "dtype", "__getitem__"):
            if not hasattr(array, what):
                raise TypeError(f"array must be an array (n, H, W), not {type(array).__name__}")
        options = ReadOptions(axes=axes, channel=channel, levels=levels)
        self._array = array
        self._layout = layout(name, tuple(array.shape), axes, known=known_axes)
        super().__init__(name, self._layout.n_frames, skip_damaged=skip_damaged)
        self.grows = self._layout.counting in ((), (0,))
        self.fps = fps
        if pixels is None:
            pixels = PixelFormat(np.dtype(array.dtype), samples=self._layout.n_samples)
            if self._layout.n_samples in (3, 4):
                pixels = replace(pixels, meaning="rgb", opacity=self._layout.n_samples == 4)
        if scaling:
            pixels = replace(pixels, scaling=scaling)
        self._pixels = PixelReader(name, pixels, options)
        self.dtype = self._pixels.dtype
        self.frame_shape = self._pixels.frame_shape(*self._layout.frame_shape)
        self.time_step_s: float | None = None
        """Usual time between two frames in s, by their times; None without times."""
        if isinstance(array, FileFrames):
            self._end_with(array, self._layout)
        if isinstance(times_s, SparseTimes):
            self._take_sparse(times_s)
        elif times_s is not None:
            self._take_times(np.asarray(times_s, dtype=np.float64))
        if self._pixels.decided_by_values and isinstance(array, np.ndarray):
            self._read(slice(0, 1))

    @classmethod
    def of_file(
        cls,
        array: Sliceable,
        name: str,
        options: ReadOptions,
        *,
        fps: float | None = None,
        times_s: npt.ArrayLike | SparseTimes | None = None,
        pixels: PixelFormat | None = None,
        known_axes: str | None = None,
        scaling: str = "",
    ) -> ArraySource:
        """The frames of an array in a file, read with the ``options`` of the caller."""
        return cls(
            array,
            name=name,
            fps=fps,
            times_s=times_s,
            axes=options.axes,
            channel=options.channel,
            levels=options.levels,
            pixels=pixels,
            known_axes=known_axes,
            scaling=scaling,
            skip_damaged=options.skip_damaged,
        )

    def _end_with(self, file: FileFrames, places: Layout) -> None:
        """Leave out the frames that lie behind the end of a file which is cut off."""
        stated = places.n_frames
        item = file.dtype.itemsize * int(np.prod(file.shape, dtype=np.int64)) // stated
        available = file.available_bytes()
        whole = available // item
        if whole >= stated:
            return
        if not places.consecutive or not whole:
            raise UnreadableFileError(
                self.name,
                "frames",
                f"it is cut off, with {available} of {item * stated} bytes of pixels, and no frame in it is complete",
            )
        at = file.offset + whole * item
        self.lost_tail = Gap(whole, stated - whole, file.path.name, at, "the file ends there")
        self.n_frames = whole

    def _take_times(self, times: Times) -> None:
        stated = self._layout.n_frames
        if times.shape != (stated,):
            raise ConfigError(f"{self.name} has {stated} frames, but times of the shape {times.shape}")
        times = times[: self.n_frames]
        taken = np.flatnonzero(np.isfinite(times))
        self._times = relative(self.name, times)
        self.time_step_s = median_step(self._times)
        if taken.size < len(times):
            self._order = taken
            self.n_frames = int(taken.size)

    def _take_sparse(self, given: SparseTimes) -> None:
        times = relative(self.name, given.times)
        self._order, self._times = given.places, SparseTimes(given.places, times)
        self.time_step_s = median_step(times)
        self.n_frames = len(given.places)

    def _read(self, part: slice) -> Frames:
        try:
            block = self._layout.read(self._array, part.start, part.stop)
        except (FrameDamage, ConfigError, OSError, MemoryError):
            raise
        except Exception as error:  # libraries raise many kinds of errors for damaged chunks
            raise decode_error(error, self.name) from error
        if isinstance(block, np.memmap):
            # Read the disk here, and not later while a caller holds a lock.
            block = np.array(block, order="C", subok=False)
        return self._pixels.frames(block, part.start)

    def stored_pieces(self) -> Callable[[int], bool] | None:
        """Return whether the array has its chunk k of the first axis; None for arrays that can't tell."""
        has_piece: Callable[[int], bool] | None = getattr(self._array, "has_piece", None)
        return has_piece

    def _close(self) -> None:
        close = getattr(self._array, "close", None)
        if callable(close):
            close()
