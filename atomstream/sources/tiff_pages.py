"""The pages of a TIFF file as one array, and what the tags state about their pixels and axes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger

from .damage import FrameDamage, UnreadableFileError, decode_error, read_error
from .file_frames import FileFrames
from .frame_source import optional_package
from .lzw import decode_other_lzw
from .pixels import Meaning, PixelFormat
from .tiff_chain import EndedBefore, broken_link
from .whole_pictures import why_not_whole

logger = get_logger(__name__)

_MEANING: Final[dict[int, Meaning]] = {
    0: "white_is_zero",
    1: "grey",
    2: "rgb",
    3: "palette",
    4: "grey",  # a mask
    32803: "mosaic",
    34892: "grey",  # linear raw
}
"""Photometric interpretation (tag 262); all others have no sample that is the brightness."""

_YCBCR: Final = 6
_JPEG: Final = 7
_LZW: Final = 5
_JPEG_KINDS: Final = frozenset({_JPEG, 33007, 34892})
"""Kinds of compression (tag 259) by JPEG: their decoders fill the rest of a picture that is cut off, without an
error."""
_OPACITY: Final = (1, 2)
"""Extra samples (tag 338) that are opacity, premultiplied or not."""
MANY_PAGES: Final = 64
"""From this number of pages on, a description that is about a single page is ignored: it contains no more than the
page's tags."""
_DESCRIBED: Final = re.compile(r'^\{"shape": \[([0-9]+(?:, [0-9]+)*)\]\}$')


def pixel_format(name: str, page: Any, channels: int) -> PixelFormat:
    """Return what the tags of a page of tifffile state about its samples.

    ``channels`` are the samples of a pixel, also where each one has a separate page.
    """
    photometric = _photometric(page)
    if 262 not in page.tags:
        logger.warning("%s does not state whether 0 is black (tag 262); it is taken for black", name)
    samples = int(page.samplesperpixel)
    meaning = _MEANING.get(photometric, "other")
    if photometric == _YCBCR and int(page.compression) == _JPEG:
        meaning = "rgb"  # the decoder of JPEG converts it
    dtype = np.dtype(page.dtype)
    return PixelFormat(
        dtype=dtype,
        meaning=meaning,
        bits=_bits(page, dtype),
        samples=max(samples, channels),
        opacity=_has_opacity(page, meaning, samples),
        palette=_palette(page) if meaning == "palette" else None,
        orientation=_orientation(name, page),
    )


def pages_of(series: list[Any]) -> list[Any]:
    """Return the pages of all series in their order in the file.

    tifffile makes a series of pages that are stored alike, so pages of several series may alternate.
    """
    pages = [page for part in series for page in part.pages]
    if len(series) > 1 and all(isinstance(getattr(page, "index", None), int) for page in pages):
        pages.sort(key=lambda page: int(page.index))
    return pages


def check_alike(name: str, series: list[Any]) -> None:
    """Refuse a file whose pages state different meanings of a pixel: a stream has one for all its frames.

    A tag that a page does not have is that of the first page: programs write some only there.
    """
    first = series[0].keyframe
    for number, page in enumerate(pages_of(series)):
        if page is None or page is first or not hasattr(page, "tags"):
            continue  # tifffile has compared this page with the first one
        palettes = [each.tags.valueof(320) for each in (first, page)]
        alike = (
            _photometric(page) == _photometric(first)
            and page.tags.valueof(274) in (None, first.tags.valueof(274, 1))
            and (any(palette is None for palette in palettes) or np.array_equal(*palettes))
        )
        if not alike:
            raise ConfigError(
                f"{name}: page {number} has another photometric interpretation, orientation or palette than the first "
                "one (tags 262, 274, 320): split the file there"
            )


def _photometric(page: Any) -> int:
    """Return the photometric interpretation; where it is missing, that of most files: 0 is black."""
    return int(page.photometric) if page.photometric is not None and 262 in page.tags else 1


def _bits(page: Any, dtype: np.dtype[Any]) -> int | None:
    bits = page.bitspersample
    bits = max(bits) if isinstance(bits, tuple) else int(bits)
    return bits if dtype.kind == "u" and 0 < bits < 8 * dtype.itemsize else None


def _has_opacity(page: Any, meaning: Meaning, samples: int) -> bool:
    extra = tuple(int(kind) for kind in page.extrasamples or ())
    return samples in (2, 4) and len(extra) == 1 and (extra[0] in _OPACITY or meaning == "rgb")


def _palette(page: Any) -> npt.NDArray[np.uint16] | None:
    colours = page.colormap
    return None if colours is None else np.asarray(colours, dtype=np.uint16).T


def _orientation(name: str, page: Any) -> int:
    tag = page.tags.get(274)
    value = 1 if tag is None else tag.value
    if isinstance(value, int) and 1 <= value <= 8:
        return int(value)
    if value == 0:  # written by programs that do not support the tag
        return 1
    raise ConfigError(f"{name} has the orientation {value!r} (tag 274), which TIFF does not define")


@contextmanager
def opened_tiff(path: Path) -> Iterator[Any]:
    """Open a file up to its first broken link; errors of its parser become :class:`UnreadableFileError`."""
    with ExitStack() as files:
        try:
            yield _open(path, files)
        except (ConfigError, FrameDamage, GeneratorExit):
            raise
        except Exception as error:  # for damaged files the parser raises struct.error and others
            raise UnreadableFileError(str(path), "TIFF", str(error)) from error


def _open(path: Path, files: ExitStack) -> Any:
    tifffile = optional_package("tifffile", "video", "Reading TIFF")
    link = broken_link(path)
    if link is None:
        tif = files.enter_context(tifffile.TiffFile(path))
        if _describes_each_page(tif):
            # Otherwise each page is a series, and tifffile compares each series with each other one.
            tif = files.enter_context(tifffile.TiffFile(path, is_shaped=False, is_uniform=False))
    else:
        file = files.enter_context(EndedBefore(path, link))
        tif = files.enter_context(tifffile.TiffFile(file, name=path.name))
    missing = _missing_bytes(tif)
    if missing > 0:
        file = files.enter_context(EndedBefore(path, link, missing))
        tif = files.enter_context(tifffile.TiffFile(file, name=path.name))
    return tif


def _describes_each_page(tif: Any) -> bool:
    """Return True if the file has many pages, and tifffile's description of the first one is about this page alone."""
    first = tif.pages.first
    if not tif.is_shaped or len(tif.pages) < MANY_PAGES:
        return False
    found = _DESCRIBED.search(str(first.description))
    return found is not None and tuple(map(int, found[1].split(","))) == tuple(first.shape)


def _missing_bytes(tif: Any) -> int:
    """Return how many bytes are missing at the end of a file of ImageJ, whose pixels are in one piece."""
    if not tif.is_imagej or not tif.imagej_metadata:
        return 0
    page = tif.pages.first
    counts = [tif.imagej_metadata.get(name, 1) for name in ("frames", "slices", "channels")]
    images = int(max(math.prod(counts), tif.imagej_metadata.get("images", 1)))
    if not page.is_final or images < 2 or len(tif.pages) > 1:
        return 0
    return int(page.dataoffsets[0]) + images * int(page.nbytes) - int(tif.filehandle.size)


class TiffArray:
    """The pages of one or several series of a TIFF file as an array that is read page by page.

    ``series`` are of tifffile, with pages of one shape and dtype. The pages of several series follow each other.
    The file is opened again at the first access, and stays open until :meth:`close`. A page that is not complete
    raises :class:`FrameDamage`.
    """

    def __init__(self, path: Path, series: list[Any]) -> None:
        self._path = path
        self._files = ExitStack()
        self._tif: Any = None
        self._pages: list[Any] = []
        self._is_open: set[str] = set()
        count = sum(len(part.pages) for part in series)
        first = series[0]
        self.dtype = np.dtype(first.dtype)
        byte_order = first.keyframe.parent.byteorder
        shape = (1, *(int(n) for n in first.keyframe.shape))
        self._stored = FileFrames(path, self.dtype.newbyteorder(byte_order), shape, 0)
        self._size = path.stat().st_size
        pages = pages_of(series)
        self._places = [self._place(page) for page in pages]
        self._is_ome = first.kind == "ome"
        self.files: frozenset[Path] = frozenset(
            path.parent / page.parent.filehandle.name for page in pages if page is not None
        )
        """The files with the pages: OME-TIFF of several files names those of all of them."""
        self.shape = tuple(int(n) for n in first.shape)
        self.axes = str(first.axes)
        if len(series) > 1:
            self.shape = (count, *(int(n) for n in first.keyframe.shape))
            self.axes = f"N{first.keyframe.axes}"
        leading, reached = 0, 1
        while reached < count:
            reached *= self.shape[leading]
            leading += 1
        if reached != count:
            raise ConfigError(
                f"{path} has {count} pages, which do not fit its shape {self.shape}; is it complete?"
            )
        self._leading = leading

    def close(self) -> None:
        """Close the file."""
        self._files.close()
        self._stored.close()
        self._tif, self._pages = None, []
        self._is_open.clear()

    def __getitem__(self, key: tuple[int | slice, ...], /) -> npt.NDArray[Any]:
        """Return a part; ``key`` has an integer or a slice for each axis."""
        slow, inner = key[: self._leading], key[self._leading :]
        ranges = [
            range(*part.indices(length)) if isinstance(part, slice) else range(part, part + 1)
            for part, length in zip(slow, self.shape, strict=False)
        ]
        places = (
            np.indices([len(r) for r in ranges]).reshape(len(ranges), -1).T
            if ranges
            else np.zeros((1, 0), int)
        )
        numbers = []
        for place in places:
            at = [r[int(i)] for r, i in zip(ranges, place, strict=True)]
            numbers.append(int(np.ravel_multi_index(at, self.shape[: self._leading])) if at else 0)
        kept = [len(r) for r, part in zip(ranges, slow, strict=True) if isinstance(part, slice)]
        if self._stored.dtype.isnative and all(part == slice(None) for part in inner):
            block = self._whole(numbers)
        else:
            block = np.stack([self._page(number)[inner] for number in numbers])
        return block.reshape(*kept, *block.shape[1:])

    def _whole(self, numbers: list[int]) -> npt.NDArray[Any]:
        """Return these pages as one array, each read into its place: joining separate arrays would take as long as the
        reading."""
        out = self._stored.new_block(len(numbers)).reshape(len(numbers), *self.shape[self._leading :])
        for page, number in zip(out, numbers, strict=True):
            if (place := self._places[number]) is None:
                page[...] = self._page(number)
            else:
                self._stored.read_into(page, place)
        return out

    def _page(self, number: int) -> npt.NDArray[Any]:
        place = self._places[number]
        if place is not None:
            return self._stored.item_at(place).reshape(self.shape[self._leading :])
        if self._tif is None:
            self._tif = _open(self._path, self._files)
            self._pages = pages_of(list(self._tif.series))
        page = self._pages[number] if number < len(self._pages) else None
        if page is None:
            elsewhere = (
                "; OME-TIFF may have it in another file, which is missing or damaged" if self._is_ome else ""
            )
            raise FrameDamage(f"page {number} is missing{elsewhere}", self._path.name)
        self._open_file_of(page)
        self._check_strips(page)
        try:
            pixels = np.asarray(page.asarray())
        except Exception as error:  # decoders raise errors of their libraries
            other = self._other_lzw(page)
            if other is None:
                at = page.dataoffsets[0] if page.dataoffsets else None
                raise decode_error(error, self._path.name, at) from error
            pixels = other
        return pixels.reshape(self.shape[self._leading :])

    def _open_file_of(self, page: Any) -> None:
        """Open the file of a page, if it is another one: OME-TIFF of several files names the pages of all of them."""
        file = page.parent.filehandle
        if page.parent is not self._tif and file.path not in self._is_open:
            try:
                file.open()
            except OSError as error:
                raise read_error(error, file.name) from error
            self._files.callback(file.close)
            self._is_open.add(file.path)

    def _place(self, page: Any) -> int | None:
        """Return where the pixels begin, if they are stored as they are in one piece: one read gives them.

        None if the parser is needed, if they are in another file, or if a part of them is missing.
        """
        if page is None or page.parent.filehandle.name != self._path.name:
            return None
        if not page.is_final or sum(page.databytecounts) != self._stored.item_bytes:
            return None
        places, counts = list(page.dataoffsets), page.databytecounts
        ends = [offset + count for offset, count in zip(places, counts, strict=False)]
        return int(places[0]) if places[0] and places[1:] == ends[:-1] and ends[-1] <= self._size else None

    def _other_lzw(self, page: Any) -> npt.NDArray[Any] | None:
        """Return the pixels of a page in strips of LZW that TIFF does not define; None for others, or if damaged."""
        form = page.keyframe
        bits = form.bitspersample
        if (
            int(form.compression) != _LZW
            or form.is_tiled
            or int(form.planarconfig) != 1
            or bits not in (8, 16)
        ):
            return None
        imagecodecs = optional_package("imagecodecs", "video", "Reading TIFF with LZW")
        row_bytes = form.imagewidth * form.samplesperpixel * bits // 8
        parts = []
        for number, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            page.parent.filehandle.seek(offset)
            rows = min(form.rowsperstrip, form.imagelength - number * form.rowsperstrip)
            decoded = decode_other_lzw(page.parent.filehandle.read(count), rows * row_bytes)
            if decoded is None:
                return None
            # The page's own decoder does the rest: predictor, order of bytes.
            parts.append(np.asarray(page.decode(imagecodecs.lzw_encode(decoded), number)[0]).reshape(-1))
        return np.concatenate(parts)

    def _check_strips(self, page: Any) -> None:
        """Raise FrameDamage if a strip or tile is missing or cut off; parsers fill it with zeros or grey."""
        handle = page.parent.filehandle
        name = handle.name
        size = (self._path.parent / name).stat().st_size
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if not offset or not count:
                raise FrameDamage("a part of its pixels was never written", name, page.offset)
            if offset + count > size:
                raise FrameDamage("the file ends within it", name, offset)
        if int(page.compression) in _JPEG_KINDS:
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                handle.seek(offset)
                if reason := why_not_whole(handle.read(count)):
                    raise FrameDamage(reason, name, offset)
