"""Frames from a video file with their presentation times (PyAV)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger

from .av_pixels import Picture, orientation_of, picture_of, turned_pixels
from .chunk_memory import ChunkMemory
from .containers import fourcc, has_unused_bytes, raw_pixels, why_not_open
from .damage import ChunkBuilder, DamagedSourceError, UnreadableFileError, add_gap, raise_at_end
from .frame_source import EmptySourceError, Gap, SourceChunk, checked_chunk_size, optional_package
from .geometry import Geometry, parse_geometry
from .growth import GrowingBytes, Growth
from .monochrome import is_monochrome
from .options import ReadOptions
from .pixels import PixelFormat, PixelReader
from .video_decoding import Lost, RawPackets, VideoDecoder
from .video_times import in_order, stated_rate

logger = get_logger(__name__)

Frame: TypeAlias = np.ndarray[Any, Any]


class VideoSource:
    """The first video stream of a file. Samples are unchanged, of more than 8 bits as uint16.

    Times are the presentation timestamps in s from the first frame, also for a variable frame rate. With ``growth``
    the file is still being written, and its end is waited for. Raises :class:`ConfigError` if the file has no video
    that can be decoded.
    """

    def __init__(self, path: Path, options: ReadOptions, growth: Growth | None = None) -> None:
        self.name = str(path)
        self._growth = growth
        self._path = path
        self._options = options
        self._raw = _raw_pixels(path, options)
        self._reader: PixelReader | None = None
        self._monochrome = False
        self._padded = has_unused_bytes(path)
        self.n_frames: int | None = None
        self.gaps: list[Gap] = []
        first, rate = self._probe()
        self.frame_shape: tuple[int, int] = (first.shape[0], first.shape[1])
        self.dtype = first.dtype
        self.fps: float | None = rate

    def _probe(self) -> tuple[Frame, float | None]:
        """Decode the first frame, because headers may contain wrong sizes and formats."""
        with self._opened() as (container, stream):
            self.n_frames = stream.frames or None
            self._monochrome = is_monochrome(stream)
            decoder = self._decoder(container, stream)
            for item in decoder.frames():
                if isinstance(item, Lost):
                    self._leave_out(item)
                    continue
                if decoder.hidden:
                    self.n_frames = None  # those of the edit list are not known before the end
                if getattr(item.frame, "interlaced_frame", False):
                    logger.warning(
                        "%s is interlaced: odd and even rows of a frame were taken half a frame's time apart. They "
                        "are kept as they are",
                        self.name,
                    )
                return self._grey(item.frame, item.number), stated_rate(self._path, container, stream)
        raise EmptySourceError(f"{self.name} is empty: its video has no frames")

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all frames in order, at most ``chunk_size`` at a time, with their times.

        Frames that can't be decoded are left out and listed in :attr:`gaps`, and :class:`DamagedSourceError` is raised
        at the end. With ``skip_damaged=False`` it is raised at the first of them, with True not at all.
        """
        builder = ChunkBuilder(checked_chunk_size(chunk_size))
        self.gaps = []
        memory = ChunkMemory()
        block = self._new_block(builder, memory)
        with self._opened() as (container, stream):
            decoder = self._decoder(container, stream)
            numbered = self._numbered(decoder)
            try:
                for (frame, number), time in in_order(self.name, numbered, self.fps):
                    block.append(frame, number, time)
                    if len(block) == builder.wanted:
                        yield from block.moved_to(builder)
                        block = self._new_block(builder, memory)
            except ConfigError:  # frames before it are whole
                yield from block.moved_to(builder)
                yield from builder.rest()
                raise
        if decoder.hidden:
            logger.warning(
                "%s contains %d more frames, which its edit list hides, as of a trimmed video; no player shows them, "
                "and they are not streamed",
                self.name, decoder.hidden,
            )  # fmt: skip
        yield from block.moved_to(builder)
        yield from builder.rest()
        raise_at_end(self.gaps, self._options.skip_damaged)

    def _new_block(self, builder: ChunkBuilder, memory: ChunkMemory) -> _Block:
        return _Block(memory.array((builder.wanted, *self.frame_shape), self.dtype))

    def _numbered(
        self, decoder: VideoDecoder | RawPackets
    ) -> Iterator[tuple[tuple[Frame, int], float | None]]:
        has_times = self.fps is not None and not self._options.ignore_times
        for item in decoder.frames():
            if isinstance(item, Lost):
                self._leave_out(item)
                continue
            # A copy, because many frames that refer to the decoder's memory would scatter that.
            frame = self._checked(self._grey(item.frame, item.number)).copy()
            yield (frame, item.number), item.time if has_times else None

    def _leave_out(self, lost: Lost) -> None:
        """Note what is lost, or raise DamagedSourceError."""
        gap = lost.damage.gap(lost.number, lost.count)
        if self._options.skip_damaged is False:
            end = None if lost.count is None else lost.number + lost.count
            behind = None if self.n_frames is None or end is None else max(0, self.n_frames - end)
            raise DamagedSourceError(gap, behind=behind)
        add_gap(self.gaps, gap)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the file, and yield its container and video stream; errors of PyAV become UnreadableFileError."""
        av = optional_package("av", "video", "Reading video")
        try:
            with self._input() as file, av.open(file) as container:
                if not container.streams.video:
                    raise ConfigError(f"{self.name} holds no video")
                yield container, container.streams.video[0]
        except av.error.FFmpegError as error:
            raise UnreadableFileError(self.name, "video", why_not_open(self._path, error)) from error

    @contextmanager
    def _input(self) -> Iterator[str | GrowingBytes]:
        if self._growth is None:
            # An absolute path: FFmpeg takes a name such as http:a.avi for an address.
            yield os.path.abspath(self._path)
            return
        with closing(GrowingBytes(self._path, self._growth)) as file:
            yield file

    def _decoder(self, container: Any, stream: Any) -> VideoDecoder | RawPackets:
        if self._raw is not None:
            return RawPackets(container, stream, self._raw, self._path.name)
        if stream.codec_context is None:  # decoding such a stream ends the process in PyAV before 18.1
            code = fourcc(self._path)
            raise ConfigError(
                f"{self.name} has a codec that FFmpeg can't decode{f' (FourCC {code!r})' if code else ''}: if its "
                "frames are raw pixels, state them by --geometry WxH[xPIXEL]; otherwise convert it with the camera's "
                "program, such as to uncompressed AVI or TIFF"
            )
        return VideoDecoder(
            container, stream, self._path, skip_damaged=self._options.skip_damaged is not False
        )

    def _grey(self, frame: Any, number: int) -> Frame:
        if self._raw is not None:
            block = self._raw.pixels(self.name, frame[None], number)
            picture = Picture(PixelFormat(self._raw.sample, bits=self._raw.bits), block[0])
        else:
            decoded = picture_of(
                self.name, frame, self._options, monochrome=self._monochrome, padded=self._padded
            )
            picture = turned_pixels(decoded, orientation_of(self.name, frame))
        if self._reader is None or not picture.pixels.same_as(self._reader.pixels):
            self._reader = PixelReader(self.name, picture.pixels, self._options)
        grey: Frame = self._reader.frames(picture.samples[None], number, picture.chroma)[0]
        return grey

    def _checked(self, frame: Frame) -> Frame:
        if frame.shape != self.frame_shape or frame.dtype != self.dtype:
            raise ConfigError(
                f"{self.name} changes from {self.frame_shape} {self.dtype} to {frame.shape} {frame.dtype} "
                "within the file; all frames of a stream must have one size: cut the file there"
            )
        return frame


def open_video(path: Path, options: ReadOptions) -> VideoSource:
    """Open a video file; a ``dataset`` is an error."""
    options.refuse_dataset(str(path))
    return VideoSource(path, options)


class _Block:
    """Frames that become a chunk, with their numbers and times."""

    def __init__(self, frames: Frame) -> None:
        self._frames = frames
        self._numbers: list[int] = []
        self._times: list[float] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def append(self, frame: Frame, number: int, time: float | None) -> None:
        self._frames[len(self._numbers)] = frame
        self._numbers.append(number)
        if time is not None:
            self._times.append(time)

    def moved_to(self, builder: ChunkBuilder) -> Iterator[SourceChunk]:
        count = len(self._numbers)
        times = np.array(self._times) if len(self._times) == count else None
        yield from builder.add(self._frames[:count], np.array(self._numbers, np.int64), times)


def _raw_pixels(path: Path, options: ReadOptions) -> Geometry | None:
    """Return how raw pixels are stored that FFmpeg has no decoder for, stated by the caller or by the AVI."""
    if options.geometry is None:
        return raw_pixels(path)
    geometry = parse_geometry(options.geometry)
    if geometry.header or geometry.each:
        raise ConfigError(f"{path} is a video, whose frames have no header: leave out +HEADER in --geometry")
    return geometry
