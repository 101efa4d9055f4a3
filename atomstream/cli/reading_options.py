"""Options of ``atomstream stream`` that state what the file does not: axes, pixels, times, order of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option(
        "--dataset",
        metavar="NAME",
        help="Array of an .npz file or a Zarr group [default: frames, or the only one].",
    ),
    click.option(
        "--axes",
        metavar="LETTERS",
        help="Meaning of an array's axes, such as TZYX, TCYX or HWN: H or Y rows, W or X columns, C colours or "
        "channels, N, T or Z frames.",
    ),
    click.option(
        "--channel",
        metavar="NAME",
        help="Channel of colour pictures: r, g, b, luma or a number; raw: samples as they are stored.",
    ),
    click.option(
        "--levels",
        nargs=2,
        type=float,
        metavar="LOW HIGH",
        help="Values of black and white, scaled to 8 bits: for signed, floating and 1-bit pixels.",
    ),
    click.option(
        "--video-range",
        type=click.Choice(["auto", "full", "limited"]),
        default="auto",
        show_default=True,
        help="Range of a video's brightness: full, or limited (black is 16, white 235).",
    ),
    click.option(
        "--order",
        type=click.Choice(["name", "mtime"]),
        default="name",
        show_default=True,
        help="Order of a folder's images: by name, or by the time of the last change.",
    ),
    click.option(
        "--time-unit", metavar="UNIT", help="Unit of the times in the file: s, ms, us, ns, min or h."
    ),
    click.option(
        "--geometry",
        metavar="WxH[xPIXEL][+HEADER]",
        help="Layout of raw pixels: columns, rows, bits (8, 12, 16, 16be, 10p, 12packed, ...) and bytes of the header.",
    ),
    click.option(
        "--skip-damaged", is_flag=True, help="Skip frames that can't be read; the report lists them."
    ),
    click.option("--ignore-times", is_flag=True, help="Ignore the times in the file; --fps alone is used."),
)
"""In the order of the help. Their names are those of :func:`open_source`."""

_NAMES: Final = (
    "dataset",
    "axes",
    "channel",
    "levels",
    "video_range",
    "order",
    "time_unit",
    "ignore_times",
    "geometry",
    "skip_damaged",
)


def reading_options(command: F) -> F:
    """Add the options of :func:`open_source` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def pop_reading(arguments: dict[str, Any]) -> dict[str, Any]:
    """Remove the options of :func:`reading_options` from a command's arguments, and return them."""
    return {name: arguments.pop(name) for name in _NAMES}
