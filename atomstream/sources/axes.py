"""What each axis of an array means: which axes count frames, which are rows and columns, which one is colour.

Axes are named by letters, one for each axis in the order of the array: ``Y`` (or ``H``) rows, ``X`` (or ``W``)
columns, ``C`` (or ``S``) the samples of a pixel, and ``N``, ``T``, ``Z``, ``I``, ``Q``, ``F`` count frames.
Without letters from the file or from the caller, only (N, H, W) and (H, W) are accepted, with more axes of length 1
before H and one after W, which are dropped: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError
from atomstream.frame_shape import is_one_picture

from .frame_source import EmptySourceError

COUNTING: Final = "TNZIQF"
"""Letters of the axes that count frames; ``T`` is the slowest, whatever its place in the array."""

_ALIASES: Final = str.maketrans("HWS", "YXC")
_KNOWN: Final = COUNTING + "YXC"
_HELP: Final = (
    "state what each axis means by axes (--axes), one letter each, such as TZYX, TCYX or YXN: "
    "Y or H rows, X or W columns, C colour samples or channels, N, T or Z frames"
)

_NAMES: Final = {
    "T": ("t", "time", "n", "frame", "frames", "index", "image", "images", "number", "frame_number"),
    "Z": ("z", "depth", "plane", "slice"),
    "Y": ("y", "row", "rows", "height", "h"),
    "X": ("x", "col", "cols", "column", "columns", "width", "w"),
    "C": ("c", "channel", "channels", "band", "sample", "samples", "rgb", "colour", "color"),
}
_LETTER_OF: Final = {name: letter for letter, names in _NAMES.items() for name in names}


class Sliceable(Protocol):
    """An array that may be on disk: a numpy array, a memory map, a Zarr or an HDF5 array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of the axes of an array. An axis that is not listed has the length 1 and is dropped."""

    shape: tuple[int, ...]
    counting: tuple[int, ...]
    """Axes that count frames, the slowest first; none for one picture."""
    rows: int
    columns: int
    samples: int | None = None
    """Axis of the samples of a pixel (colours or channels); None if each pixel is one number."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(np.prod([self.shape[axis] for axis in self.counting], dtype=np.int64))

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W) of a frame."""
        return (self.shape[self.rows], self.shape[self.columns])

    @property
    def n_samples(self) -> int:
        """Samples of a pixel."""
        return 1 if self.samples is None else self.shape[self.samples]

    @property
    def consecutive(self) -> bool:
        """True if each frame is one piece of the array in C order, and the frames follow each other."""
        order = [*self.counting, self.rows, self.columns, *([] if self.samples is None else [self.samples])]
        return order == sorted(order)

    def read(self, array: Sliceable, begin: int, end: int) -> npt.NDArray[Any]:
        """Return the frames ``begin`` to ``end`` (excluded) as (n, H, W), or (n, H, W, samples).

        Only these frames are read. The result may be a view of ``array``.
        """
        parts = [self._run(array, *run) for run in self._runs(begin, end)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _runs(self, begin: int, end: int) -> Iterator[tuple[tuple[int, ...], slice]]:
        """Yield the places of the slow axes, and the part of the fastest one, of consecutive frames."""
        slow = [self.shape[axis] for axis in self.counting[:-1]]
        length = self.shape[self.counting[-1]] if self.counting else 1
        while begin < end:
            outer, first = divmod(begin, length)
            last = min(length, first + end - begin)
            place = tuple(int(i) for i in np.unravel_index(outer, slow)) if slow else ()
            yield place, slice(first, last)
            begin += last - first

    def _run(self, array: Sliceable, place: tuple[int, ...], part: slice) -> npt.NDArray[Any]:
        kept = [self.rows, self.columns, *([] if self.samples is None else [self.samples])]
        index: list[int | slice] = [slice(None) if axis in kept else 0 for axis in range(len(self.shape))]
        for axis, at in zip(self.counting, place, strict=False):
            index[axis] = at
        if self.counting:
            index[self.counting[-1]] = part
            kept.insert(0, self.counting[-1])
        block = array[tuple(index)]
        if type(block) is not np.memmap:
            block = np.asarray(block)
        stored = sorted(kept)
        if kept != stored:
            block = block.transpose([stored.index(axis) for axis in kept])
        frames: npt.NDArray[Any] = block if self.counting else block[np.newaxis]
        return frames


def layout(name: str, shape: tuple[int, ...], axes: str | None = None, *, known: str | None = None) -> Layout:
    """Return where the frames of an array of this ``shape`` are.

    ``axes`` are the letters that the caller gives, ``known`` those of the file; the caller's override them.
    Raises :class:`ConfigError` if neither is given and the shape is not that of frames, for letters that do not fit
    the shape, and for empty arrays.
    """
    letters = _checked(name, shape, axes, "axes (--axes)") if axes is not None else None
    if letters is None and known is not None:
        letters = _checked(name, shape, known, "The file's axes")
    if letters is None:
        letters = _plain(name, shape)
    if 0 in shape:
        raise EmptySourceError(f"{name} is empty: its shape is {shape}")
    return _placed(shape, letters)


def letters_of_names(names: Any) -> str | None:
    """Return the letters of named dimensions, such as ("time", "y", "x"); None if a name is not known."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    found = [_LETTER_OF.get(name.casefold(), "") for name in names]
    complete = all(found) and len(set(found)) == len(found) and {"Y", "X"} <= set(found)
    return "".join(found) if complete else None


def _checked(name: str, shape: tuple[int, ...], axes: str, whose: str) -> str:
    letters = axes.strip().upper().translate(_ALIASES)
    if len(letters) != len(shape):
        raise ConfigError(f"{whose} {axes!r} name {len(letters)} axes, but {name} has the shape {shape}")
    # An axis of length 1 needs no meaning.
    long = [letter for letter, length in zip(letters, shape, strict=True) if length != 1 or letter in "YX"]
    unknown = sorted({letter for letter in long if letter not in _KNOWN})
    if unknown:
        raise ConfigError(
            f"{whose} {axes!r} of {name}, {shape}, contain {', '.join(unknown)}, which is not a frame, row, column or "
            f"colour: {_HELP}"
        )
    if len(set(long)) != len(long) or long.count("Y") != 1 or long.count("X") != 1:
        raise ConfigError(f"{whose} {axes!r} must name rows and columns once, and no axis twice: {_HELP}")
    return letters


def _plain(name: str, shape: tuple[int, ...]) -> str:
    """Return the letters of an array without names: frames, one picture, with axes of length 1 around them."""
    if is_one_picture(shape):
        raise ConfigError(
            f"{name} has the shape {shape}: this may be one colour picture (H, W, colours) or {shape[0]} frames "
            f"of {shape[1]}x{shape[2]}; {_HELP}"
        )
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3:
        return "NYX"
    if len(shape) > 3 and shape[-1] not in (3, 4):
        ending = "YXC" if shape[-1] == 1 else "YX"
        before = shape[: -len(ending)]
        if sum(length != 1 for length in before) <= 1:
            return "".join("I" if length == 1 else "N" for length in before) + ending
    colours = " (colour frames?)" if len(shape) > 3 and shape[-1] in (3, 4) else ""
    raise ConfigError(
        f"{name} has the shape {shape}{colours}; without more, only (N, H, W) and (H, W) are frames: {_HELP}"
    )


def _placed(shape: tuple[int, ...], letters: str) -> Layout:
    needed = [axis for axis, length in enumerate(shape) if length != 1]
    counting = [axis for axis in needed if letters[axis] in COUNTING]
    counting.sort(key=lambda axis: (letters[axis] != "T", axis))
    colour = [axis for axis in needed if letters[axis] == "C"]
    return Layout(
        shape, tuple(counting), letters.index("Y"), letters.index("X"), colour[0] if colour else None
    )
