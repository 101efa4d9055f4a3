"""Conversion of stored samples to frames, in one place for all kinds of files: what the numbers of a pixel mean.

A reader describes the samples of its file by a :class:`PixelFormat`; :class:`PixelReader` makes frames of them, uint8
or uint16, in which a larger number is brighter. Values are counts and are never scaled, except by ``levels`` and for
the limited range of video, which has its own black and white. Where the meaning is not certain, the file is refused,
and the error names the option that states it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError
from atomstream.records import Frames
from atomstream.system.log_privacy import get_logger

from .convert import to_uint8
from .options import ReadOptions

logger = get_logger(__name__)

Samples: TypeAlias = npt.NDArray[Any]

Meaning: TypeAlias = Literal["grey", "white_is_zero", "palette", "rgb", "yuv", "mosaic", "other"]
"""Meaning of the samples of a pixel.

``grey``: brightness (several samples: channels). ``white_is_zero``: 0 is white. ``palette``: indices of a palette.
``rgb``: red, green, blue. ``yuv``: luma; the chroma is given apart. ``mosaic``: one colour per pixel, behind a
colour filter (Bayer). ``other``: CMYK, Lab and others, of which no sample is the brightness.
"""

Range: TypeAlias = Literal["full", "limited", "presumably limited"]
"""Numbers of black and white: all, or 16 and 235 (of 8 bits, in proportion for more), as most video has them."""

_COLOURS: Final = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
_LUMA: Final = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma (ITU-R BT.601)."""

CHROMA_TOLERANCE: Final = 3 / 256
"""Largest distance of the chroma of a grey picture from its middle, as a part of its range: rounding, in JPEG."""

_CLIPPED_PIXELS: Final = 0.001
"""Part of the pixels outside of the limited range from which a video is reported: noise and ringing stay below."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelFormat:
    """Description of stored samples."""

    dtype: np.dtype[Any]
    meaning: Meaning = "grey"
    bits: int | None = None
    """Bits of a sample that are used, counted from the lowest; None: all of the dtype."""
    samples: int = 1
    """Samples of a pixel, without chroma that is given apart; the last axis of a block, if more than 1."""
    opacity: bool = False
    """True if the last sample is the opacity (alpha)."""
    palette: Samples | None = None
    """Colours (k, 3) of the indices, uint8 or uint16; None for ``meaning="palette"`` if the file has none."""
    range: Range = "full"
    scaling: str = ""
    """How the file says that the values follow from the numbers, such as "scale_factor 0.5"; empty: they are equal."""
    orientation: int = 1
    """How a frame is turned for display: 1 to 8, as in TIFF and EXIF."""

    def same_as(self, other: PixelFormat) -> bool:
        """Return True if both describe the same samples."""
        for name in _COMPARED:  # for each frame of a video, so without dataclasses.fields
            if getattr(self, name) != getattr(other, name):
                return False
        if self.palette is None or other.palette is None:
            return self.palette is other.palette
        return np.array_equal(self.palette, other.palette)


_COMPARED: Final = tuple(field.name for field in fields(PixelFormat) if field.name != "palette")


class PixelReader:
    """Makes frames of blocks of samples. Raises :class:`ConfigError` for samples that can't become frames.

    ``name`` is the file, for messages.
    """

    def __init__(self, name: str, pixels: PixelFormat, options: ReadOptions) -> None:
        self.name = name
        self.pixels = pixels
        self._levels = options.levels
        self._reported = False
        self._raw = options.channel == "raw"
        self._luma = options.channel == "luma"
        self._sample = self._chosen_sample(options.channel)
        self._check_meaning()
        self._palette = self._grey_palette()
        self._palette_dtype = np.dtype(
            np.uint8 if self._palette is None or self._palette.max(initial=0) < 256 else np.uint16
        )
        self.dtype = self._frame_dtype()

    @property
    def decided_by_values(self) -> bool:
        """True if only the pixel values show whether a picture is grey: the colours of each pixel are equal or not."""
        return self._sample is None and (self.pixels.samples > 1 or self._palette is not None)

    def frame_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return (H, W) of the frames of pictures that are stored with these sizes."""
        return (width, height) if self.pixels.orientation >= 5 else (height, width)

    def frames(self, block: Samples, first: int = 0, chroma: tuple[Samples, ...] = ()) -> Frames:
        """Return frames (n, H, W), C-contiguous, of ``block`` (n, h, w) or (n, h, w, samples).

        ``first`` is the number of the block's first frame in the file, for messages. ``chroma`` are the colour
        differences of ``yuv``, of any shapes. Raises :class:`ConfigError` for colour and for NaN.
        """
        grey = self._one_sample(block, first, chroma)
        if self.pixels.meaning == "palette" and not self._raw and self.pixels.palette is not None:
            grey = self._colours_of(grey, first)
        elif self.pixels.range != "full" and not self._raw:
            grey = self._expanded(grey)
        grey = self._inverted(grey) if self.pixels.meaning == "white_is_zero" and not self._raw else grey
        grey = self._scaled(grey, first)
        frames: Frames = np.ascontiguousarray(turned(grey, self.pixels.orientation), dtype=self.dtype)
        return frames

    def _chosen_sample(self, channel: str | None) -> int | None:
        if channel is None or channel in ("raw", "luma"):
            return None
        if self.pixels.meaning == "rgb" and channel.casefold() in _COLOURS:
            return _COLOURS[channel.casefold()]
        if channel.isdecimal() and int(channel) < self.pixels.samples:
            return int(channel)
        raise ConfigError(
            f"{self.name} has no channel {channel!r} (--channel); its pixels have {self.pixels.samples} sample(s)"
            + (": r, g, b or luma" if self.pixels.meaning == "rgb" else ", counted from 0")
        )

    def _check_meaning(self) -> None:
        pixels = self.pixels
        if pixels.scaling and not self._raw:
            raise ConfigError(
                f"{self.name} states that its values are not the numbers that are stored, but follow from them "
                f"({pixels.scaling}): give channel='raw' (--channel raw) to stream the numbers as they are stored"
            )
        if pixels.meaning == "mosaic" and not self._raw:
            raise ConfigError(
                f"{self.name} was taken by a colour camera and holds its filter mosaic (Bayer): give channel='raw' "
                "(--channel raw) to stream the samples as they are, or convert it to grey first"
            )
        if pixels.meaning == "other" and self._sample is None:
            raise ConfigError(
                f"{self.name} holds colours of a kind (CMYK, Lab or another) in which no number is the brightness: "
                f"convert it to grey first, or choose one of its {pixels.samples} samples with channel (--channel 0)"
            )
        if self._luma and pixels.meaning not in ("rgb", "yuv", "grey"):
            raise ConfigError(f"{self.name} has no colours of which a luma can be made (--channel luma)")

    def _grey_palette(self) -> Samples | None:
        """Return the brightness of each index, -1 for colours; None if the indices are the brightness."""
        palette = self.pixels.palette
        if self.pixels.meaning != "palette" or palette is None or self._raw:
            return None
        levels = np.where((palette == palette[:, :1]).all(axis=1), palette[:, 1].astype(np.int64), -1)
        if palette.dtype.itemsize == 2:
            # Programs write 8 bits into the 16 of a TIFF palette as v * 256 or v * 257.
            grey = levels[levels >= 0]
            for factor in (257, 256):
                if not (grey % factor).any():
                    return np.where(levels >= 0, levels // factor, -1)
        return levels

    def _frame_dtype(self) -> np.dtype[Any]:
        pixels = self.pixels
        dtype, bits = pixels.dtype, pixels.bits
        if self._levels is not None and dtype.kind in "buif":
            return np.dtype(np.uint8)
        if self._palette is not None:
            return self._palette_dtype
        if dtype.kind == "u" and bits != 1 and (dtype.itemsize <= 2 or (bits or 99) <= 16):
            return np.dtype(np.uint8 if (bits or 8 * dtype.itemsize) <= 8 else np.uint16)
        if dtype.kind not in "buif":
            raise ConfigError(
                f"{self.name} holds {dtype} pixels, which are not a brightness: store real numbers"
                + (", such as numpy.abs of them" if dtype.kind == "c" else "")
            )
        kind = "1-bit" if dtype.kind == "b" or bits == 1 else str(dtype)
        example = "0 1" if kind == "1-bit" or dtype.kind == "f" else "0 4095"
        raise ConfigError(
            f"{self.name} holds {kind} pixels; uint8 and uint16 can be streamed as they are: give the values of "
            f"black and white by levels (--levels LOW HIGH, such as --levels {example}), which become 0 and 255"
        )

    def _one_sample(self, block: Samples, first: int, chroma: tuple[Samples, ...]) -> Samples:
        """Return (n, h, w): the only sample, the chosen one, or that of colours which are all equal."""
        pixels = self.pixels
        if pixels.meaning == "yuv" and not (self._luma or self._raw or self._sample == 0):
            self._check_chroma(chroma, first)
        if block.ndim == 3:
            return block
        if self._sample is not None:
            chosen: Samples = block[..., self._sample]
            return chosen
        colours = block
        if pixels.opacity:
            self._check_opacity(block[..., -1], first)
            colours = block[..., :-1]
        if self._luma and colours.shape[-1] > 1:
            return self._luma_of(colours)
        first_colour: Samples = colours[..., 0]
        for other in range(1, colours.shape[-1]):
            differs = (colours[..., other] != first_colour).any(axis=(1, 2))
            if differs.any():
                self._refuse_colour(first + int(np.argmax(differs)), colours.shape[-1])
        return first_colour

    def _refuse_colour(self, frame: int, samples: int) -> None:
        if self.pixels.meaning in ("rgb", "yuv"):
            choices = "channel (--channel): luma, r, g or b"
        else:
            choices = f"channel (--channel): 0 to {samples - 1}"
        raise ConfigError(
            f"{self.name}: frame {frame} is a colour picture, or has {samples} channels that differ; a stream is "
            f"grey: choose the {choices}"
        )

    def _check_chroma(self, chroma: tuple[Samples, ...], first: int) -> None:
        bits = self.pixels.bits or 8
        middle, tolerance = 1 << (bits - 1), int(CHROMA_TOLERANCE * (1 << bits))
        for plane in chroma:
            if plane.size and (
                int(plane.max()) > middle + tolerance or int(plane.min()) < middle - tolerance
            ):
                self._refuse_colour(first, 3)

    def _check_opacity(self, opacity: Samples, first: int) -> None:
        top = (1 << (self.pixels.bits or 8 * opacity.dtype.itemsize)) - 1 if opacity.dtype.kind == "u" else 1
        clear = (opacity != top).any(axis=(1, 2))
        if clear.any() and not self._luma:
            raise ConfigError(
                f"{self.name}: frame {first + int(np.argmax(clear))} is transparent in some places; choose what its "
                "pixels are by channel (--channel 0 is the first sample as it is stored, without the opacity)"
            )

    def _luma_of(self, colours: Samples) -> Samples:
        if colours.shape[-1] != 3:
            raise ConfigError(
                f"{self.name} has {colours.shape[-1]} channels, which are not red, green and blue: choose "
                f"channel (--channel) 0 to {colours.shape[-1] - 1}"
            )
        luma: Samples = colours.astype(np.float64) @ np.array(_LUMA)
        return luma if colours.dtype.kind == "f" else np.floor(luma + 0.5).astype(colours.dtype)

    def _colours_of(self, indices: Samples, first: int) -> Samples:
        palette = self._palette
        assert palette is not None
        highest = int(indices.max(initial=0))
        if highest >= len(palette):
            raise ConfigError(
                f"{self.name}: frame {first} or one after it has the index {highest}, but the palette has "
                f"{len(palette)} colours; channel='raw' (--channel raw) streams the indices as they are"
            )
        is_colour = palette < 0
        if is_colour.any():
            coloured = is_colour[indices].any(axis=(1, 2))
            if coloured.any():
                raise ConfigError(
                    f"{self.name}: frame {first + int(np.argmax(coloured))} uses colours of a palette; if they are "
                    "false colours of counts, give channel='raw' (--channel raw), which streams the counts; otherwise "
                    "convert the file to grey first"
                )
        grey: Samples = palette.astype(self._palette_dtype)[indices]
        return grey

    def _expanded(self, luma: Samples) -> Samples:
        """Map the limited range, 16 to 235 (of 8 bits), to all values, as every player does."""
        bits = self.pixels.bits or 8
        black, white, top = 16 << (bits - 8), 235 << (bits - 8), (1 << bits) - 1
        if self.pixels.range == "presumably limited" and not self._reported:
            self._report_clipped(luma, black, white)
        # round((Y - black) * top / (white - black)), in integers. A table takes ten times as long.
        width = white - black
        wide = np.uint16 if bits <= 8 else np.uint32
        above: Samples = np.clip(luma, black, white)
        above -= above.dtype.type(black)
        more: Samples = above.astype(wide)
        more *= wide(2 * (top - width))
        more += wide(width)
        more //= wide(2 * width)
        more += above
        return more.astype(self._native(luma))

    def _report_clipped(self, luma: Samples, black: int, white: int) -> None:
        """Warn once if many pixels lie outside of the limited range; compression leaves a few just outside."""
        near = (white - black) // 50
        if int(luma.min()) >= black - near and int(luma.max()) <= white + near:
            return
        outside = np.count_nonzero((luma < black - near) | (luma > white + near)) / luma.size
        if outside > _CLIPPED_PIXELS:
            self._reported = True
            logger.warning(
                "%s: %.1f %% of the pixels lie outside of the limited range of video (%d to %d) and are clipped; "
                "if the camera used the full range, give video_range='full' (--video-range full)",
                self.name, 100 * outside, black, white,
            )  # fmt: skip

    def _native(self, array: Samples) -> np.dtype[Any]:
        return array.dtype.newbyteorder("=")

    def _inverted(self, grey: Samples) -> Samples:
        dtype = self._native(grey)
        if dtype.kind == "b":
            grey = np.logical_not(grey)
        elif dtype.kind == "u":
            top = (1 << (self.pixels.bits or 8 * dtype.itemsize)) - 1
            grey = np.subtract(dtype.type(top), grey, dtype=dtype)
        return grey  # for other types low and high are exchanged instead

    def _scaled(self, grey: Samples, first: int) -> Samples:
        if self._levels is None:
            return grey
        try:
            scaled: Samples = to_uint8(grey, *self._levels)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: frame {first} or one after it: {error}") from error
        if self.pixels.meaning == "white_is_zero" and not self._raw and grey.dtype.kind in "if":
            return 255 - scaled
        return scaled


def turned(frames: Samples, orientation: int) -> Samples:
    """Return frames (n, H, W) turned for display from the way in which they are stored (TIFF tag 274, EXIF)."""
    if orientation in (5, 6, 7, 8):
        frames = frames.transpose(0, 2, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else None)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else None)
    return frames[:, rows, columns]
