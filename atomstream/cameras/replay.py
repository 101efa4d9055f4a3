"""The camera ``file:PATH``: a recording that is played in real time, once. For rehearsals and for old recordings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from atomstream.cameras.camera import CameraFrame, CameraInfo, CameraSettings, FoundCamera, refuse_settings
from atomstream.errors import CameraEndedError, CameraError, ConfigError
from atomstream.sources import DamagedSourceError, FrameSource, ReadAhead, open_source

READ_FRAMES: Final = 16
"""Frames that are read at once."""

MAX_LATE_S: Final = 0.5
"""Longest delay that is caught up by playing faster. After a longer one, the times of the later frames are shifted."""


class FileReplay:
    """Plays what :func:`atomstream.sources.open_source` reads; the numbers are those of the recording.

    The times are those of playing, at the recording's frame rate or at ``settings.fps``. After the last frame
    :meth:`grab` raises CameraEndedError. Opening it again begins at the first frame.
    """

    def __init__(self, which: str) -> None:
        if not which:
            raise ConfigError("file: state a path, such as file:D:/growth.tif")
        self.name = f"file:{which}"
        self._path = Path(which)
        self._frames: Iterator[CameraFrame] | None = None
        self._reading: ReadAhead[list[CameraFrame]] | None = None
        self._next: CameraFrame | None = None
        self._period_s = 0.0
        self._due_s = 0.0
        self._end = "The recording has ended."

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """Return an empty list: any file can be played, so a search finds none in particular."""
        return []

    def open(self, settings: CameraSettings) -> CameraInfo:
        """See :class:`atomstream.cameras.Camera`."""
        refuse_settings(self.name, settings, "fps")
        self.close()
        source = open_source(self._path)
        fps = settings.fps or source.fps
        if fps is None:
            raise ConfigError(f"{self._path} does not contain a frame rate: give it (--fps).")
        self._reading = ReadAhead(_blocks(source))
        self._frames = (frame for block in self._reading for frame in block)
        self._next = None
        self._period_s, self._due_s = 1.0 / fps, time.monotonic()
        self._end = f"{self.name} has ended: all its frames were delivered."
        shape = (source.frame_shape[0], source.frame_shape[1])
        return CameraInfo(
            model=f"recording {self._path.name}", shape=shape, dtype=str(source.dtype), fps=fps, id_bits=63
        )

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """See :class:`atomstream.cameras.Camera`."""
        frame = self._next or self._read()
        wait = self._due_s - time.monotonic()
        if wait > timeout_s:
            self._next = frame
            time.sleep(timeout_s)
            return None
        time.sleep(max(0.0, wait))
        self._next = None
        late = max(0.0, -wait)
        time_ms = 1000.0 * (time.time() - (late if late <= MAX_LATE_S else 0.0))
        self._due_s = (self._due_s if late <= MAX_LATE_S else time.monotonic()) + self._period_s
        return CameraFrame(frame.pixels, frame.frame_id, time_ms)

    def close(self) -> None:
        """See :class:`atomstream.cameras.Camera`."""
        reading, self._reading, self._frames = self._reading, None, None
        if reading is not None:
            reading.close()

    def _read(self) -> CameraFrame:
        if self._frames is None:
            raise CameraError(f"{self.name} is not open.")
        try:
            frame = next(self._frames, None)
        except DamagedSourceError as error:
            raise CameraEndedError(f"{self.name} has ended: {error}") from error
        except OSError as error:
            raise CameraError(f"{self.name} can't be read further: {error}.") from error
        if frame is None:
            raise CameraEndedError(self._end)
        return frame


def _blocks(source: FrameSource) -> Iterator[list[CameraFrame]]:
    number = 0
    for chunk in source.chunks(READ_FRAMES):
        numbers = np.arange(number, number + len(chunk.frames)) if chunk.indices is None else chunk.indices
        yield [CameraFrame(pixels, int(k)) for pixels, k in zip(chunk.frames, numbers, strict=True)]
        number = int(numbers[-1]) + 1
