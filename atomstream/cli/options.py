"""Options that several commands share: server and API key, the server's folder, the calibration of a stream."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from atomstream.arguments import check_calibration
from atomstream.cli.key_argument import api_key_options
from atomstream.errors import ConfigError
from atomstream.protocol import CALIBRATION_LIMITS

F = TypeVar("F", bound=Callable[..., Any])


def connection_options(command: F) -> F:
    """Add ``--endpoint``, ``--api-key`` and ``--api-key-file``. What is not given is None, or from the environment."""
    endpoint = click.option(
        "--endpoint",
        metavar="URL",
        help="URL of the server [else $ATOMSTREAM_ENDPOINT, else that of `atomstream login`].",
    )
    api_key = api_key_options(
        "API key of the server [else $ATOMSTREAM_API_KEY, else that of `atomstream login`]."
    )
    return endpoint(api_key(command))


def data_dir_option(default: str, purpose: str) -> Callable[[F], F]:
    """The option ``--data``: the folder of a server, passed as ``data_dir``."""
    return click.option(
        "--data",
        "data_dir",
        default=Path(default),
        show_default=True,
        type=click.Path(path_type=Path, file_okay=False),
        help=purpose,
    )


# Calibration options. The ranges are those of the server, checked before the request.

CALIBRATION_OPTIONS: Final = (
    ("--beam-energy", "beam_energy", "KEV", "Electron energy in keV."),
    ("--distance", "screen_sample_distance", "MM", "Distance from sample to screen in mm."),
    ("--px-per-mm", "px_per_mm", "PX", "Pixels per mm on the screen."),
    ("--incidence", "incidence_deg", "DEG", "Angle of incidence (glancing) in degrees."),
    ("--miller-n", "miller_n", "N", "n in a = 2*pi*n/G [1]."),
    ("--reference-spacing", "reference_spacing_px", "PX", "Streak spacing of the substrate in px."),
    ("--layer-thickness", "layer_thickness_nm", "NM", "Thickness of one layer in nm, for rates in nm/s."),
)
"""Flag, argument name of ``streamer.calibrate``, unit, help text."""


class _FiniteRange(click.FloatRange):
    """A number in a range. NaN is rejected too, which comparisons alone would not do."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail("nan is not a number in the allowed range.", param, ctx)
        return number


def calibration_options(command: F) -> F:
    """Add the calibration options; each is None if not given."""
    layer_unit = click.option(
        "--layer-unit",
        metavar="NAME",
        help="Name of the layer that one oscillation corresponds to [monolayer].",
    )
    command = layer_unit(command)
    for flag, name, unit, text in reversed(CALIBRATION_OPTIONS):
        low, high, _ = CALIBRATION_LIMITS[name]
        number_range = _FiniteRange(low, high)
        command = click.option(flag, name, type=number_range, metavar=unit, help=text)(command)
    return command


def pop_calibration(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the calibration options from ``options`` and return those given, as arguments of ``calibrate``.

    Raises:
        click.BadParameter: The layer unit is empty or longer than 32 characters.
    """
    names = [name for _, name, *_ in CALIBRATION_OPTIONS] + ["layer_unit"]
    given = {name: value for name in names if (value := options.pop(name, None)) is not None}
    try:
        return check_calibration(given)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--layer-unit") from None
