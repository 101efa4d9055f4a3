"""The options that say which server is meant, shared by all commands that talk to one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from atomstream.protocol import CALIBRATION_LIMITS

F = TypeVar("F", bound=Callable[..., Any])


def connection_options(command: F) -> F:
    """Add ``--endpoint`` and ``--api-key``; both are None where the environment shall say."""
    endpoint = click.option(
        "--endpoint",
        metavar="URL",
        help="The server [else $ATOMSTREAM_ENDPOINT, else the hosted service].",
    )
    api_key = click.option("--api-key", metavar="KEY", help="Its API key [else $ATOMSTREAM_API_KEY].")
    return endpoint(api_key(command))


# The options that turn pixels and oscillations into lengths; the server's own ranges, checked before it is asked.

OPTIONS: Final = (
    ("--beam-energy", "beam_energy", "KEV", "The electrons' energy in keV."),
    ("--distance", "screen_sample_distance", "MM", "From the sample to the screen, in mm."),
    ("--px-per-mm", "px_per_mm", "PX", "Pixels of the picture for a mm on the screen."),
    ("--incidence", "incidence_deg", "DEG", "The glancing angle in degrees."),
    ("--miller-n", "miller_n", "N", "The n of a = 2*pi*n/G [1]."),
    ("--reference-spacing", "reference_spacing_px", "PX", "The substrate's streak spacing."),
    ("--layer-thickness", "layer_thickness_nm", "NM", "Of one layer, in nm: rates in nm/s."),
)
"""Flag, the name of ``streamer.calibrate``'s argument, unit, help."""


class _Within(click.FloatRange):
    """A number in a range; nan is in none, though no comparison says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail("nan is no number.", param, ctx)
        return number


def calibration_options(command: F) -> F:
    """Add the options of a calibration; each is None where it was not given."""
    layer_unit = click.option("--layer-unit", metavar="NAME", help="What one oscillation is [monolayer].")
    command = layer_unit(command)
    for flag, name, unit, text in reversed(OPTIONS):
        low, high, _ = CALIBRATION_LIMITS[name]
        within = _Within(low, high)
        command = click.option(flag, name, type=within, metavar=unit, help=text)(command)
    return command


def take_calibration(options: dict[str, Any]) -> dict[str, Any]:
    """Take the calibration's options out of ``options``; those that were given, as ``calibrate`` names them.

    Raises:
        click.BadParameter: a layer's unit that is no word.
    """
    names = [name for _, name, *_ in OPTIONS] + ["layer_unit"]
    given = {name: value for name in names if (value := options.pop(name, None)) is not None}
    if not 0 < len(given.get("layer_unit", "monolayer").strip()) <= 32:
        raise click.BadParameter(
            "must have 1 to 32 characters, as 'unit cell' has.", param_hint="--layer-unit"
        )
    return given
