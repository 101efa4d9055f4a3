"""Samples of a frame of PyAV, for video and images: every bit as it was decoded, without conversion by FFmpeg.

FFmpeg's conversion to grey cuts deep pixels to 8 bits and invents brightness for palettes. The samples are therefore
taken from the planes of the frame, and :mod:`.pixels` decides what they mean.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from atomstream.errors import ConfigError

from .options import ReadOptions
from .pixels import Meaning, PixelFormat, Range, Samples

_GREY: Final = re.compile(r"gray(\d*)(le|be)?$")
_YUV: Final = re.compile(r"yuv(j?)a?4\d\dp(\d*)(le|be)?$")
_SEMIPLANAR: Final = {"nv12": 8, "nv21": 8, "nv16": 8, "nv24": 8, "nv42": 8}
_SHIFTED: Final = re.compile(r"p[024](10|12|16)(le|be)$")
_PLANAR_RGB: Final = re.compile(r"gbra?p(\d*)(le|be)?$")
_PACKED_LUMA: Final = {"yuyv422": (0, 1), "yvyu422": (0, 1), "uyvy422": (1, 0)}
"""Offset of the luma and of the chroma in each pair of bytes."""

_DEEP_RGB: Final = {"rgb48": (0, 1, 2), "bgr48": (2, 1, 0), "rgba64": (0, 1, 2, 3), "bgra64": (2, 1, 0, 3)}
_OPAQUE_RGB: Final = re.compile(r"(rgb24|bgr24|0rgb|rgb0|0bgr|bgr0|rgb555|rgb565|bgr555|bgr565)(le|be)?$")
_CLEAR_RGB: Final = ("rgba", "bgra", "argb", "abgr")

_RANGES: Final[dict[int, Range]] = {1: "limited", 2: "full"}
"""AVColorRange of FFmpeg; 0 is not stated."""

_ORIENTATIONS: Final = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
"""Orientation, as in EXIF, for the signs of a display matrix's first two rows and columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Samples (h, w) or (h, w, samples) of one picture, its chroma if that is apart, and what they mean."""

    pixels: PixelFormat
    samples: Samples
    chroma: tuple[Samples, ...] = ()


def picture_of(
    name: str, frame: Any, options: ReadOptions, *, monochrome: bool = False, padded: bool = False
) -> Picture:
    """Return the samples of a decoded frame of PyAV. Raises :class:`ConfigError` for formats that are not known.

    ``monochrome``: the file has no chroma, also if the decoder gives some. ``padded``: the fourth byte of a pixel is
    not an opacity but unused, whatever the decoder calls it.
    """
    frame = _top_down(frame)
    found = frame.format.name
    if (match := _GREY.match(found)) is not None:
        return _grey(frame, match, options)
    if (
        match := _YUV.match(found) or _SHIFTED.match(found)
    ) is not None or found in _SEMIPLANAR | _PACKED_LUMA:
        if options.channel in ("r", "g", "b", "red", "green", "blue"):
            return _converted(frame, match)
        return _yuv(frame, options, monochrome)
    if (match := _PLANAR_RGB.match(found)) is not None:
        return _planar_rgb(frame, match)
    if found == "pal8":
        return _palette(frame)
    if found in ("monow", "monob"):
        bits = np.unpackbits(_plane(frame, 0, np.dtype(np.uint8), (frame.width + 7) // 8), axis=1)
        meaning: Meaning = "white_is_zero" if found == "monow" else "grey"
        return Picture(PixelFormat(np.dtype(bool), meaning), bits[:, : frame.width].astype(bool))
    picture = _packed(name, frame)
    if padded and picture.pixels.opacity:
        colours = replace(picture.pixels, samples=picture.pixels.samples - 1, opacity=False)
        return Picture(colours, picture.samples[..., :-1])
    return picture


def orientation_of(name: str, frame: Any) -> int:
    """Return the orientation, 1 to 8 as in EXIF, that the display matrix of a frame states; 1 without one."""
    for number in range(len(frame.side_data)):
        side_data = frame.side_data[number]
        if getattr(side_data.type, "name", "") == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side_data)[:36])
            signs = tuple(round(value / 65536) for value in (a, b, c, d))
            exact = all(
                abs(value - sign * 65536) < 64 for value, sign in zip((a, b, c, d), signs, strict=True)
            )
            if not exact or signs not in _ORIENTATIONS:
                raise ConfigError(
                    f"{name} is to be rotated for display by another angle than 90, 180 or 270 degrees: rotate it first"
                )
            return _ORIENTATIONS[signs]
    return 1


def _top_down(frame: Any) -> Any:
    """Return the frame with rows from the top; old AVI files store them from the bottom.

    The planes of PyAV have no valid buffer for such rows. A filter of FFmpeg copies them in order.
    """
    if all(plane.line_size > 0 for plane in frame.planes[:1]):
        return frame
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    copy, sink = graph.add("copy"), graph.add("buffersink")
    source.link_to(copy)
    copy.link_to(sink)
    graph.configure()
    graph.push(frame)
    return graph.pull()


def _plane(frame: Any, number: int, dtype: np.dtype[Any], width: int) -> Samples:
    """Return the plane (rows, ``width``) without the padding of its rows; it refers to the frame's memory."""
    plane = frame.planes[number]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, abs(plane.line_size))
    return rows[:, : width * dtype.itemsize].view(dtype)


def _sample_type(bits: int, end: str | None) -> np.dtype[Any]:
    return np.dtype(np.uint8) if bits <= 8 else np.dtype(">u2" if end == "be" else "<u2")


def _grey(frame: Any, match: re.Match[str], options: ReadOptions) -> Picture:
    bits = int(match[1] or 8)
    dtype = _sample_type(bits, match[2])
    # A file without chroma has the counts of its camera. HEVC calls them limited where nothing is stated.
    pixels = PixelFormat(dtype, bits=bits, range="limited" if options.video_range == "limited" else "full")
    return Picture(pixels, _plane(frame, 0, dtype, frame.width))


def _range(frame: Any, options: ReadOptions, *, unstated: Range) -> Range:
    if options.video_range != "auto":
        return "limited" if options.video_range == "limited" else "full"
    return _RANGES.get(int(frame.color_range), unstated)


def _yuv(frame: Any, options: ReadOptions, monochrome: bool) -> Picture:
    found, width = frame.format.name, frame.width
    match, shifted = _YUV.match(found), _SHIFTED.match(found)
    # yuvj: the old name of FFmpeg for the full range.
    is_full = monochrome or (match is not None and match[1])
    limits = _range(frame, options, unstated="full" if is_full else "presumably limited")
    if found in _PACKED_LUMA:
        luma_at, chroma_at = _PACKED_LUMA[found]
        pairs = _plane(frame, 0, np.dtype(np.uint8), 2 * width)
        pixels = PixelFormat(np.dtype(np.uint8), "yuv", 8, range=limits)
        return Picture(pixels, pairs[:, luma_at::2], (pairs[:, chroma_at::2],))
    if match is not None:
        bits, end = int(match[2] or 8), match[3]
    else:
        bits, end = (int(shifted[1]), shifted[2]) if shifted else (_SEMIPLANAR[found], None)
    dtype = _sample_type(bits, end)
    shift = 16 - bits if shifted else 0
    planes = [(1, 1), (2, 1)] if match is not None else [(1, 2)]
    chroma = [_plane(frame, number, dtype, per * frame.planes[number].width) for number, per in planes]
    luma = _plane(frame, 0, dtype, width)
    pixels = PixelFormat(dtype, "yuv", bits, range=limits)
    if shift:
        luma, chroma = luma >> shift, [plane >> shift for plane in chroma]
    return Picture(pixels, luma, tuple(chroma))


def _converted(frame: Any, match: re.Match[str] | None) -> Picture:
    """Return luma and chroma as red, green and blue, for a single colour of them."""
    bits = max(component.bits for component in frame.format.components)
    if bits <= 8:
        return Picture(
            PixelFormat(np.dtype(np.uint8), "rgb", 8, 3), np.asarray(frame.to_ndarray(format="rgb24"))
        )
    target = frame.reformat(format=f"gbrp{bits}le")
    found = _PLANAR_RGB.match(target.format.name)
    assert found is not None
    return _planar_rgb(target, found)


def _planar_rgb(frame: Any, match: re.Match[str]) -> Picture:
    bits = int(match[1] or 8)
    dtype = _sample_type(bits, match[2])
    order = (2, 0, 1, 3)[: len(frame.planes)]  # stored as green, blue, red
    samples = np.stack([_plane(frame, number, dtype, frame.width) for number in order], axis=-1)
    return Picture(PixelFormat(dtype, "rgb", bits, len(order), opacity=len(order) == 4), samples)


def _palette(frame: Any) -> Picture:
    indices = _plane(frame, 0, np.dtype(np.uint8), frame.width)
    colours = np.frombuffer(frame.planes[1], "=u4")[:256]
    if (colours == colours[0]).all():  # FFmpeg's sign of a file without a palette
        return Picture(PixelFormat(np.dtype(np.uint8), "palette", 8), indices)
    palette = np.stack([(colours >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=-1)
    return Picture(PixelFormat(np.dtype(np.uint8), "palette", 8, palette=palette), indices)


def _packed(name: str, frame: Any) -> Picture:
    found = frame.format.name
    base = found.removesuffix("le").removesuffix("be")
    dtype = _sample_type(16, "be" if found.endswith("be") else "le")
    width = frame.width
    if base in _DEEP_RGB:
        order = _DEEP_RGB[base]
        samples = _plane(frame, 0, dtype, width * len(order)).reshape(frame.height, width, len(order))
        pixels = PixelFormat(dtype, "rgb", 16, len(order), opacity=len(order) == 4)
        return Picture(pixels, samples[..., list(order)])
    if found in _CLEAR_RGB:
        samples = np.asarray(frame.to_ndarray(format="rgba"))
        return Picture(PixelFormat(np.dtype(np.uint8), "rgb", 8, 4, opacity=True), samples)
    if _OPAQUE_RGB.match(found):
        samples = np.asarray(frame.to_ndarray(format="rgb24"))
        return Picture(PixelFormat(np.dtype(np.uint8), "rgb", 8, 3), samples)
    if base in ("ya8", "ya16"):
        dtype = np.dtype(np.uint8) if base == "ya8" else dtype
        samples = _plane(frame, 0, dtype, 2 * width).reshape(frame.height, width, 2)
        return Picture(PixelFormat(dtype, "grey", 8 * dtype.itemsize, 2, opacity=True), samples)
    if found.startswith("bayer_"):
        dtype = np.dtype(np.uint8) if found.endswith("8") else dtype
        return Picture(PixelFormat(dtype, "mosaic", 8 * dtype.itemsize), _plane(frame, 0, dtype, width))
    raise ConfigError(
        f"{name} has pixels of the format {found}, which can't be read without loss: convert it first, such as by "
        "ffmpeg -i FILE -pix_fmt gray16le -c:v ffv1 OUT.mkv"
    )


def turned_pixels(picture: Picture, orientation: int) -> Picture:
    """Return the picture with its orientation stated."""
    return (
        picture
        if orientation == 1
        else replace(picture, pixels=replace(picture.pixels, orientation=orientation))
    )
