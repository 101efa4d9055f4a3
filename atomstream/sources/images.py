"""Frames from a folder of images, one per file, in natural order of the names (frame2 before frame10)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from atomstream.errors import ConfigError
from atomstream.records import Frames

from .av_pixels import Picture, picture_of, turned_pixels
from .damage import (
    DamagedSourceError,
    FrameDamage,
    IndexedFrames,
    UnreadableFileError,
    decode_error,
    read_error,
)
from .exif import exif_orientation
from .frame_source import first_chunk, optional_package
from .image_files import TIFF_SUFFIXES, images_in
from .options import ReadOptions
from .pgm import maximum, read_pgm
from .pixels import PixelReader
from .png import png_counts
from .tiff import open_tiff
from .video_decoding import STRICT
from .whole_pictures import why_not_whole


class ImagesSource(IndexedFrames):
    """Grey images of one size and depth, one frame each. Raises :class:`ConfigError` for others."""

    fps: float | None = None

    def __init__(self, name: str, paths: list[Path], options: ReadOptions) -> None:
        super().__init__(name, len(paths), skip_damaged=options.skip_damaged)
        self._paths = paths
        self._options = options
        self._deep = any(_is_deep_pgm(path) for path in paths)
        number, first = self._first_whole()
        self._pattern = paths[number].name
        self.frame_shape: tuple[int, int] = (first.shape[0], first.shape[1])
        self.dtype = first.dtype

    def _first_whole(self) -> tuple[int, Frames]:
        for number, path in enumerate(self._paths):
            try:
                return number, read_image(path, self._options, deep=self._deep)
            except FrameDamage as damage:
                if self.skip_damaged is False:
                    raise DamagedSourceError(damage.gap(number), behind=len(self._paths) - 1) from damage
        raise ConfigError(f"{self.name}: none of the {len(self._paths)} images can be read")

    def _read(self, part: slice) -> Frames:
        paths = self._paths[part]
        frames = np.empty((len(paths), *self.frame_shape), self.dtype)
        for k, path in enumerate(paths):
            frames[k] = self._image(path)
        return frames

    def _image(self, path: Path) -> Frames:
        frame = read_image(path, self._options, deep=self._deep)
        if frame.shape != self.frame_shape or frame.dtype != self.dtype:
            raise ConfigError(
                f"{path} is {frame.shape} {frame.dtype}, but {self._pattern} is {self.frame_shape} {self.dtype}; "
                "a stream's frames are all of one size"
            )
        return frame


def open_images(path: Path, options: ReadOptions) -> ImagesSource:
    """Open a folder of images, with those in its folders, or one image; other files are ignored."""
    options.refuse_dataset(str(path))
    if path.is_file():
        return ImagesSource(str(path), [path], options)
    return ImagesSource(str(path), images_in(path, options.order), options)


def _is_deep_pgm(path: Path) -> bool:
    try:
        return path.suffix.casefold() == ".pgm" and maximum(path) > 255
    except (FrameDamage, OSError):  # reported when the image is read
        return False


def read_image(path: Path, options: ReadOptions, *, deep: bool = False) -> Frames:
    """Read one image as a frame (H, W), uint8 or uint16. ``deep``: PGM are uint16, whatever their own maximum.

    Raises :class:`FrameDamage` if it can't be read completely, :class:`ConfigError` if it is not a frame.
    """
    try:
        if path.suffix.casefold() in TIFF_SUFFIXES:
            return _read_tiff(path, options)
        is_pgm = path.suffix.casefold() == ".pgm"
        picture = read_pgm(path, deep=deep) if is_pgm else _read_picture(path, options)
    except OSError as error:
        raise read_error(error, path.name) from error
    reader = PixelReader(str(path), picture.pixels, options)
    frame: Frames = reader.frames(picture.samples[None], 0, picture.chroma)[0]
    return frame


def _read_tiff(path: Path, options: ReadOptions) -> Frames:
    try:
        source = open_tiff(path, options)
        if source.n_frames != 1:
            raise ConfigError(
                f"{path} has {source.n_frames} pages; in a folder each file is one frame: give such files by their "
                "names, several in a row"
            )
        chunk = first_chunk(source)
    except UnreadableFileError as error:
        raise FrameDamage(error.reason if path.stat().st_size else "the file is empty", path.name) from error
    except DamagedSourceError as error:
        raise FrameDamage(error.gap.reason, path.name, error.gap.byte) from error
    if chunk is None:
        raise FrameDamage("it holds no picture", path.name)
    frame: Frames = chunk.frames[0]
    return frame


def _read_picture(path: Path, options: ReadOptions) -> Picture:
    data = path.read_bytes()
    if reason := why_not_whole(data):
        raise FrameDamage(reason, path.name, len(data))
    av = optional_package("av", "video", "Reading images")
    try:
        # Opened by content: FFmpeg takes a name with % for a pattern of names.
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise FrameDamage("it holds no picture", path.name)
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise FrameDamage("FFmpeg has no decoder for it", path.name)
            stream.codec_context.options = dict(STRICT)
            frame = next(container.decode(stream), None)
            if frame is None or frame.is_corrupt:
                raise FrameDamage("it holds no complete picture", path.name)
            picture = png_counts(str(path), data, picture_of(str(path), frame, options))
            return turned_pixels(picture, exif_orientation(data))
    except (av.error.FFmpegError, IndexError) as error:
        raise decode_error(error, path.name) from error
