"""``atomstream camera``: lists the cameras, and shows the picture of one of them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atomstream.cli.camera_options import camera_options, settings_from
from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from atomstream.cameras import CameraFrame, CameraInfo, Grabber


@click.group()
def camera() -> None:
    """List cameras, and show the picture of one before a growth; stream with `atomstream stream --camera NAME`."""


@camera.command(name="list")
@click.option("--kind", "kinds", multiple=True, help="Search only for this kind; may be repeated.")
def list_found(kinds: tuple[str, ...]) -> int:
    """Print the name and the model of every camera that is found.

    Kinds whose driver is not installed are listed on stderr, with the command that installs it.
    """
    from atomstream.cameras import list_cameras

    found, not_searched = list_cameras(list(kinds) or None)
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        click.echo(f"{one.name:<{width}}  {one.description}")
    for kind, reason in not_searched.items():
        console.write(f"{kind}: not searched: {reason}")
    return ExitCode.DONE


@camera.command()
@click.argument("name")
@click.option("--seconds", default=2.0, show_default=True, help="How long the frame rate is measured.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the picture to this file, as PNG."
)
@click.option("--picture/--no-picture", default=True, help="Draw the picture in the terminal (default).")
@camera_options
def preview(name: str, seconds: float, out: Path | None, picture: bool, **arguments: Any) -> int:
    """Show the picture of camera NAME, its histogram, its saturated pixels and its real frame rate.

    The contrast of the picture is stretched; the numbers are those of the camera. No server is needed.

    \b
    Examples:
      atomstream camera preview sim
      atomstream camera preview basler:0 --exposure 8 --out now.png
    """
    from atomstream.cameras import Grabber, open_camera
    from atomstream.cameras.preview import png, stretched

    settings = settings_from(arguments)
    with Grabber(open_camera(name), settings, notify=console.write) as grabber:
        frame, rate = _measured(grabber, seconds)
    if picture:
        click.echo(_drawn(frame))
    click.echo(_report(name, grabber, frame, rate))
    if out is not None:
        out.write_bytes(png(stretched(frame.pixels)))
        click.echo(f"Picture     {out}")
    return ExitCode.DONE


def _measured(grabber: Grabber, seconds: float) -> tuple[CameraFrame, float | None]:
    """Grab for ``seconds`` after the first frame; returns the last frame and the rate in 1/s."""
    first = last = None
    for frame in grabber.frames():
        first = first or frame
        last = frame
        if _time_s(frame) - _time_s(first) >= seconds:
            break
    if first is None or last is None:
        raise AssertionError("frames() ends only after stop()")
    span = _time_s(last) - _time_s(first)
    return last, (grabber.counts.frames - 1) / span if span > 0 else None


def _time_s(frame: CameraFrame) -> float:
    return (frame.time_ms_utc or 0.0) / 1000.0


def _drawn(frame: CameraFrame) -> str:
    from atomstream.cameras.preview import terminal_picture

    columns = min(shutil.get_terminal_size().columns - 1, 100)
    return terminal_picture(frame.pixels, columns, colours=sys.stdout.isatty())


def _report(name: str, grabber: Grabber, frame: CameraFrame, rate: float | None) -> str:
    from atomstream.cameras.preview import exposure_of
    from atomstream.cli.playback import table

    info, counts = grabber.info, grabber.counts
    height, width = frame.pixels.shape
    white = info.white if frame.pixels.dtype == info.dtype else int(2 ** (8 * frame.pixels.itemsize) - 1)
    exposure = exposure_of(frame.pixels, white)
    rows = [
        ("Camera", f"{name}: {info.model}"),
        ("Frame", f"{width}x{height} {frame.pixels.dtype}{_settings_text(info)}"),
        ("Rate", _rate_text(info, rate)),
        ("Frames", f"{counts.frames} complete, {counts.missing} missing, {counts.incomplete} incomplete"),
        ("Pixels", f"{exposure.minimum} to {exposure.maximum}, mean {exposure.mean:.1f}, white is {white}"),
        ("Saturated", f"{100 * exposure.saturated:.3f} % of the pixels"),
        ("Histogram", f"|{exposure.bar}| 0 to {white}, logarithmic"),
    ]
    if exposure.advice:
        rows.append(("Note", exposure.advice))
    return table(rows)


def _settings_text(info: CameraInfo) -> str:
    text = "" if info.exposure_ms is None else f", exposure {info.exposure_ms:g} ms"
    return text if info.gain is None else f"{text}, gain {info.gain:g}"


def _rate_text(info: CameraInfo, rate: float | None) -> str:
    measured = "not measured" if rate is None else f"{rate:.2f} frames per second"
    return measured if info.fps is None else f"{measured}; the camera states {info.fps:.2f}"
