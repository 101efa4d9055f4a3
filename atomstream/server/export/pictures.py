"""Frames as a video, MP4 or GIF. A video shows the time and the growth rate below each picture."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.durations import clock_text
from atomstream.errors import ConfigError
from atomstream.records import Frames
from atomstream.server.export.growth import Growth, Piece
from atomstream.server.export.table import RATE

FILM_FPS: Final = 25
"""Pictures per second of a video."""

GIF_FPS: Final = 10
MAX_GIF_PICTURES: Final = 600
GIF_BYTES: Final = 200 << 20
"""Most bytes of all pictures of a GIF: its writer keeps them until the last one. More are binned."""
CAPTION_PX: Final = 24
MOST_SIDE: Final = 2048
"""Longest side of a picture of a video in px; larger frames are binned. An encoder keeps up to 20 pictures."""
_X264: Final = {"preset": "veryfast", "rc-lookahead": "5", "bframes": "0", "threads": "2"}
"""Few pictures in memory: the usual settings keep 60, which is 700 MB for 2048 x 2048."""
_LEVELS_FROM: Final = 64
"""Number of frames, spread over the stream, from which the brightness of a video is set."""


def write_mp4(growth: Growth, path: Path) -> None:
    """Write an H.264 video at real speed, :data:`FILM_FPS` pictures a second, with time and growth rate.

    Raises:
        ConfigError: the stream has no frames.
    """
    import av

    film = _Film.of(growth, FILM_FPS)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FILM_FPS, options=_X264)
        stream.width, stream.height = film.size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FILM_FPS)
        for picture in film.pictures():
            frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_gif(growth: Growth, path: Path) -> None:
    """Write an animated GIF of at most :data:`MAX_GIF_PICTURES` pictures; longer streams are shown faster.

    Raises:
        ConfigError: the stream has no frames.
    """
    from PIL import Image

    film = _Film.of(growth, GIF_FPS, MAX_GIF_PICTURES)
    pictures = (Image.fromarray(picture) for picture in film.pictures())
    with closing(pictures):
        first = next(pictures)
        first.save(path, "GIF", save_all=True, append_images=pictures, duration=round(1000 / GIF_FPS), loop=0)


@dataclass(frozen=True, slots=True, eq=False)
class _Film:
    """The pictures of a video: 8 bit, scaled to ``low`` .. ``high``, with a caption below."""

    growth: Growth
    low: float
    high: float
    size: tuple[int, int]
    """Width and height of a picture in pixels; both even, which H.264 needs."""
    binning: int
    """Each pixel is the mean of at most so many by so many pixels of the frame."""

    @classmethod
    def of(cls, growth: Growth, fps: int, most: int | None = None) -> _Film:
        """A video of every n-th frame, so that it plays at real speed with ``fps`` pictures a second."""
        geometry, stored = growth.archive.geometry, len(growth.runs)
        growth.check_pixels()
        if geometry is None or not stored:
            raise ConfigError("The stream has no frames.")
        step = max(growth.step, round(growth.metadata.fps / fps) or 1)
        if most is not None:
            step = max(step, -(-stored // most))
        chosen = replace(growth, step=step)
        ranks = np.linspace(0, stored - 1, min(stored, _LEVELS_FROM)).astype(int)
        samples = (growth.frame_at(int(rank)) for rank in ranks)  # one in memory at a time
        levels = np.array([np.percentile(one, (1.0, 99.8)) for one in samples if one is not None])
        low, high = float(levels[:, 0].min()), float(levels[:, 1].max())
        binning = -(-max(geometry.width, geometry.height) // MOST_SIDE)
        pixels = 0 if most is None else geometry.width * geometry.height * -(-stored // step)
        while pixels > GIF_BYTES * binning**2:
            binning += 1
        width = geometry.width // min(binning, geometry.width)
        height = geometry.height // min(binning, geometry.height) + CAPTION_PX
        size = (width + width % 2, height + height % 2)
        return cls(chosen, low, max(high, low + 1.0), size, binning)

    def pictures(self) -> Generator[npt.NDArray[np.uint8], None, None]:
        """The pictures (height, width), uint8."""
        with closing(self.growth.pieces(pixels=True)) as pieces:
            for piece in pieces:
                for k, frame in enumerate(_frames(piece)):
                    yield self._picture(_binned(frame, self.binning), self._caption(piece, k))

    def _picture(self, frame: npt.NDArray[Any], caption: str) -> npt.NDArray[np.uint8]:
        from PIL import Image, ImageDraw, ImageFont

        width, height = self.size
        out = np.zeros((height, width), dtype=np.uint8)
        scaled = (frame.astype(np.float32) - self.low) * (255.0 / (self.high - self.low))
        out[: frame.shape[0], : frame.shape[1]] = np.clip(scaled, 0, 255)
        strip = Image.new("L", (width, CAPTION_PX))
        size = min(16.0, max(7.0, 1.7 * width / max(len(caption), 1)))
        ImageDraw.Draw(strip).text((4, 3), caption, fill=255, font=ImageFont.load_default(size))
        out[frame.shape[0] : frame.shape[0] + CAPTION_PX] = np.asarray(strip)[: height - frame.shape[0]]
        return out

    def _caption(self, piece: Piece, k: int) -> str:
        time_s = float(piece.time_s[k])
        clock = clock_text(time_s) if math.isfinite(time_s) else ""
        rate = float(piece.columns[RATE][k]) if RATE in piece.columns else float("nan")
        return f"{clock}   {rate:.4f} ML/s" if rate == rate else clock


def _binned(frame: Frames, binning: int) -> npt.NDArray[Any]:
    """The means of ``binning`` x ``binning`` pixels; rows and columns that are left over are cut off."""
    if binning == 1:
        return frame
    rows, columns = (min(binning, side) for side in frame.shape)
    height, width = frame.shape[0] // rows, frame.shape[1] // columns
    cut = frame[: height * rows, : width * columns].reshape(height, rows, width, columns)
    means: npt.NDArray[Any] = cut.mean(axis=(1, 3), dtype=np.float32)
    return means


def _frames(piece: Piece) -> Any:
    return () if piece.frames is None else piece.frames
