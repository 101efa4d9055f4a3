"""Frames from a video file with their presentation times (PyAV)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger

from .av_pixels import orientation_of, picture_of, turned_pixels
from .frame_source import SourceChunk, checked_chunk_size, optional_package
from .monochrome import is_monochrome
from .options import ReadOptions
from .pixels import PixelReader
from .video_times import in_order, stated_rate

logger = get_logger(__name__)

Frame: TypeAlias = np.ndarray[Any, Any]


class VideoSource:
    """The first video stream of a file. Samples are unchanged, of more than 8 bits as uint16.

    Times are the presentation timestamps in s from the first frame, also for a variable frame rate. Raises
    :class:`ConfigError` if the file has no video that can be decoded.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.name = str(path)
        self._path = path
        self._options = options
        self._reader: PixelReader | None = None
        self._monochrome = False
        self.n_frames: int | None = None
        first, rate = self._probe()
        self.frame_shape: tuple[int, int] = (first.shape[0], first.shape[1])
        self.dtype = first.dtype
        self.fps: float | None = rate

    def _probe(self) -> tuple[Frame, float | None]:
        """Decode the first frame, because headers may contain wrong sizes and formats."""
        for frame, container, stream in self._decode():
            self.n_frames = stream.frames or None
            if frame.interlaced_frame:
                logger.warning(
                    "%s is interlaced: odd and even rows of a frame were taken half a frame's time apart. They are "
                    "kept as they are",
                    self.name,
                )
            self._monochrome = is_monochrome(stream)
            return self._grey(frame, 0), stated_rate(self._path, container, stream)
        raise ConfigError(f"{self.name} is empty: its video has no frames")

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all frames in order, at most ``chunk_size`` at a time, with their times."""
        step = checked_chunk_size(chunk_size)
        block: list[tuple[Frame, float | None]] = []
        count = 0
        try:
            for timed in self._timed_frames():
                block.append(timed)
                count += 1
                if len(block) == step:
                    yield _chunk(block)
                    block = []
        except ConfigError:
            if block:  # frames before the damage are whole
                yield _chunk(block)
            raise
        if block:
            yield _chunk(block)
        if self.n_frames is not None and count < self.n_frames:
            # FFmpeg raises no error for a file that is cut off between two frames.
            logger.warning(
                "%s ended after %d of the %d frames in its header", self.name, count, self.n_frames
            )

    def _timed_frames(self) -> Iterator[tuple[Frame, float | None]]:
        has_times = self.fps is not None and not self._options.ignore_times
        items = (
            (self._checked(self._grey(frame, number)), frame.time if has_times else None)
            for number, (frame, _, _) in enumerate(self._decode())
        )
        return in_order(self.name, items, self.fps)

    def _decode(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yield decoded frames with their container and stream; errors of PyAV become ConfigError."""
        av = _av()
        try:
            with av.open(self.name) as container:
                if not container.streams.video:
                    raise ConfigError(f"{self.name} holds no video")
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for frame in container.decode(stream):
                    yield frame, container, stream
        except (av.error.FFmpegError, AttributeError) as error:  # AttributeError: a stream without a decoder
            raise ConfigError(f"{self.name} can't be decoded as video: {error}") from error

    def _grey(self, frame: Any, number: int) -> Frame:
        picture = picture_of(self.name, frame, self._options, monochrome=self._monochrome)
        picture = turned_pixels(picture, orientation_of(self.name, frame))
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


def _chunk(block: list[tuple[Frame, float | None]]) -> SourceChunk:
    known = [time for _, time in block if time is not None]
    frames = np.stack([frame for frame, _ in block])
    return SourceChunk(frames, np.array(known) if len(known) == len(block) else None)


def _av() -> Any:
    return optional_package("av", "video", "Reading video")
