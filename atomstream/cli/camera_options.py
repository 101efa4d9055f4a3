"""Options for cameras, and for the changes of frames before the upload, that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from atomstream.errors import ConfigError

if TYPE_CHECKING:
    from atomstream.cameras import CameraSettings, Transforms

F = TypeVar("F", bound=Callable[..., Any])


def camera_options(command: F) -> F:
    """Add the settings of a camera: exposure, gain, region, pixel format; each is None if not given."""
    for option in (
        click.option("--pixel-format", metavar="NAME", help="The driver's pixel format, such as Mono12."),
        click.option(
            "--roi", nargs=4, type=int, metavar="X Y W H", help="Part of the sensor to read, in pixels."
        ),
        click.option("--gain", type=float, help="Gain, in the camera's unit."),
        click.option("--exposure", "exposure_ms", type=float, metavar="MS", help="Exposure time in ms."),
    ):
        command = option(command)
    return command


def settings_from(arguments: dict[str, Any], fps: float | None = None) -> CameraSettings:
    """Remove the arguments of :func:`camera_options` and return them as settings.

    Raises:
        ConfigError: a value out of range.
    """
    from atomstream.cameras import CameraSettings, Region

    roi = arguments.pop("roi")
    return CameraSettings(
        exposure_ms=arguments.pop("exposure_ms"),
        gain=arguments.pop("gain"),
        fps=fps,
        roi=None if roi is None else Region(*roi),
        pixel_format=arguments.pop("pixel_format"),
    )


def transform_options(command: F) -> F:
    """Add the changes of frames before the upload."""
    for option in (
        click.option(
            "--flip", type=click.Choice(["horizontal", "vertical"]), help="Mirror the frame, after the rotation."
        ),
        click.option("--rotate", type=int, default=0, metavar="DEG", help="Rotate clockwise: 90, 180 or 270."),
        click.option(
            "--bin-mode", type=click.Choice(["mean", "sum"]), default="mean", show_default=True,
            help="Mean keeps the brightness; sum keeps all counts, as 16 bits.",
        ),
        click.option("--bin", "bin_factor", type=int, default=1, metavar="N", help="Combine N x N pixels into one."),
        click.option("--crop", nargs=4, type=int, metavar="X Y W H", help="Part of the frame to stream, in pixels."),
        click.option(
            "--dark", type=click.Path(path_type=Path), metavar="FILE",
            help="Subtract this dark frame; the mean if the file has several.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def transforms_from(arguments: dict[str, Any], levels: tuple[float, float] | None) -> Transforms:
    """Remove the arguments of :func:`transform_options` and return them as :class:`Transforms`.

    Raises:
        ConfigError: a value out of range, or a dark frame that can't be read.
    """
    from atomstream.cameras import Region, Transforms

    dark: Path | None = arguments.pop("dark")
    region = arguments.pop("crop")
    return Transforms(
        dark=None if dark is None else _dark_frame(dark),
        region=None if region is None else Region(*region),
        bin_factor=arguments.pop("bin_factor"),
        bin_mode=arguments.pop("bin_mode"),
        degrees=arguments.pop("rotate"),
        direction=arguments.pop("flip"),
        levels=levels,
        dark_name="" if dark is None else dark.name,
    )


def _dark_frame(path: Path) -> Any:
    import numpy as np

    from atomstream.sources import open_source

    source = open_source(path)
    total, count = np.zeros(source.frame_shape, np.uint64), 0
    for chunk in source.chunks(16):
        total += chunk.frames.sum(axis=0, dtype=np.uint64)
        count += len(chunk.frames)
    if not count:
        raise ConfigError(f"--dark {path} holds no frame")
    return ((total + count // 2) // count).astype(source.dtype)
