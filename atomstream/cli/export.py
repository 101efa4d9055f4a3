"""``atomstream export``: a stream as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.options import connection_options
from atomstream.cli.project import call_service
from atomstream.errors import ConfigError
from atomstream.system.files import LOCAL

ENDINGS: Final = ("h5", "nxs", "nc", "csv", "tiff", "tif", "mp4", "gif", "png", "pdf")


@click.command()
@click.argument("data_id")
@click.option(
    "--to",
    "target",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; its ending chooses the format.",
)
@click.option("--step", default=1, show_default=True, type=click.IntRange(1), help="Export every N-th frame.")
@click.option("--no-pixels", is_flag=True, help="Results and marks alone, without frames (h5, nxs, nc).")
@click.option(
    "--at",
    "at_s",
    default=None,
    metavar="S",
    type=click.FloatRange(0.0),
    help="Time of the picture in s after the first frame (png).  [default: the newest]",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@connection_options
def export(
    data_id: str,
    target: Path,
    step: int,
    no_pixels: bool,
    at_s: float | None,
    force: bool,
    endpoint: str | None,
    api_key: str | None,
) -> int:
    """Export the stream DATA_ID of an atomstream server as a file.

    \b
    FILE.h5, .nxs   HDF5 in the NeXus layout: frames, results, marks, segments, calibration
    FILE.nc         the same as netCDF-4, for xarray
    FILE.csv        results, one row per frame, for pandas and spreadsheets
    FILE.tiff       frames with their full bit depth, for ImageJ and napari
    FILE.mp4, .gif  a video with time and growth rate below the picture
    FILE.png        one picture with its scale and the growth rate at its time
    FILE.pdf        a report of two pages

    \b
    Examples:
      atomstream export DATA_ID --to growth.h5
      atomstream export DATA_ID --to report.pdf
    """
    ending = target.suffix[1:].lower()
    if ending not in ENDINGS:
        raise ConfigError(f"{target.name}: the ending chooses the format; it is one of {', '.join(ENDINGS)}.")
    if target.exists() and not force:
        raise ConfigError(f"{target} exists; --force replaces it.")
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            call_service(
                lambda api: api.export_stream(
                    data_id, ending, file.write, step=step, pixels=not no_pixels, at_s=at_s
                ),
                endpoint,
                api_key,
            )
        LOCAL.rename(part, target)
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return ExitCode.DONE
