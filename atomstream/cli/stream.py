"""``atomstream stream``: streams a camera, or a recording as its camera would have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atomstream.cli.camera_options import camera_options, settings_from, transform_options, transforms_from
from atomstream.cli.console import console
from atomstream.cli.options import calibration_options, connection_options, pop_calibration
from atomstream.cli.reading_options import pop_reading, reading_options
from atomstream.counted import counted
from atomstream.errors import AtomstreamError, ConfigError
from atomstream.login import resolve_login

if TYPE_CHECKING:
    from atomstream.cameras import CameraSettings, Transforms
    from atomstream.cli.playback import Outcome
    from atomstream.sources import FrameSource
    from atomstream.streaming import RHEEDStreamer


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The command's arguments; :func:`stream` documents them."""

    sources: tuple[Path, ...]
    camera_name: str | None
    seconds: float | None
    frames: int | None
    fps: float | None
    chunk_size: int | None
    rpm: float
    name: str | None
    sample: str | None
    project_id: str | None
    tags: tuple[str, ...]
    azimuth: str | None
    pace: bool
    follow: bool
    idle_end_s: float | None
    drain_timeout_s: float | None
    reading: dict[str, Any]
    """Arguments of :func:`open_source`."""
    calibration: dict[str, Any]
    camera_settings: CameraSettings
    transforms: Transforms


@click.command()
@click.argument("sources", metavar="[SOURCE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--camera", "camera_name", metavar="NAME", help="Stream this camera, such as basler:0 or sim.")
@click.option("--seconds", type=float, help="End the stream after this time (cameras only).")
@click.option(
    "--frames", type=click.IntRange(min=1), help="End the stream after this many frames (cameras only)."
)
@camera_options
@transform_options
@click.option("--fps", type=float, help="Frame rate of the camera in 1/s [default: that of file or camera].")
@click.option("--chunk-size", type=int, help="Frames per chunk [default: 2 s of frames].")
@click.option("--rpm", default=0.0, show_default=True, help="Rotations per minute; 0 for stationary RHEED.")
@click.option("--name", help="Name of the stream [default: name of the file].")
@click.option("--sample", help="Physical sample: a name (created if new) or a UUID.")
@click.option("--project", "project_id", metavar="UUID", help="Project of the sample.")
@click.option("--tag", "tags", multiple=True, help="Tag: a name (created if new) or a UUID; may be repeated.")
@click.option("--azimuth", help="Crystal azimuth, such as [110]; stationary streams only.")
@click.option("--pace/--no-pace", default=True, help="In real time (default), or as fast as possible.")
@click.option(
    "--follow", is_flag=True, help="SOURCE is being written: go on as it grows, until Ctrl-C or --idle-end."
)
@click.option(
    "--idle-end",
    "idle_end_s",
    type=click.FloatRange(min=0.0),
    metavar="S",
    help="End --follow after S s without a new frame.",
)
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    type=float,
    metavar="S",
    help="Longest wait for delivery at the end [600].",
)
@reading_options
@calibration_options
@connection_options
def stream(endpoint: str | None, api_key: str | None, **arguments: Any) -> int:
    """Stream the recording SOURCE in real time, as its camera would have, or a live camera (--camera).

    SOURCE is a video, a TIFF stack, .npy, .npz, Zarr, HDF5 or NeXus, .seq, raw pixels (--geometry) or a folder of
    images, with uint8 pixels, or uint16 for an atomstream server. Several in a row are one recording. Progress goes
    to stderr: frames, chunks that wait, chunks that are done (stored or lost), MB/s on the network. The
    report at the end, on stdout, lists what is stored, and frames that could not be read.

    With a calibration (--beam-energy and the options after it) an atomstream server also computes rates in nm/s,
    the lattice parameter in angstrom, and strain.

    A camera streams until Ctrl-C, --seconds or --frames; `atomstream camera list` shows the names. --exposure,
    --gain, --roi, --pixel-format and --fps set the camera. --dark, --crop, --bin, --rotate, --flip and --levels
    change the frames before the upload, in this order; the stream's attributes record it.

    A file that a program is still writing is streamed as it grows by --follow: TIFF, HDF5 in SWMR mode, raw pixels,
    Zarr, AVI and MKV. Frames of a folder of images: --camera folder:PATH.

    Ctrl-C stops reading and delivers the frames read so far; a second Ctrl-C exits at once.

    \b
    Examples:
      atomstream stream growth.npy --fps 120 --endpoint http://127.0.0.1:8765
      atomstream stream growth.avi --rpm 15 --sample "GaN-2025-001" --tag night
      atomstream stream stack.tif --fps 20 --levels 0 4095 --no-pace
      atomstream stream live.h5 --fps 30 --follow --idle-end 60
      atomstream stream growth.npy --fps 120 --layer-thickness 0.3905 --layer-unit "unit cell"
    """
    from atomstream.cli.playback import playback_report

    reading = pop_reading(arguments)
    is_camera = arguments["camera_name"] is not None
    options = StreamOptions(
        reading=reading,
        calibration=pop_calibration(arguments),
        camera_settings=settings_from(arguments, arguments["fps"] if is_camera else None),
        transforms=transforms_from(arguments, reading["levels"] if is_camera else None),
        **arguments,
    )
    if options.camera_name is not None:
        outcome, report = _stream_camera(options, options.camera_name, endpoint, api_key)
    else:
        _check_recording(options)
        outcome = _stream(options, endpoint, api_key)
        report = playback_report(outcome)
    click.echo(report)
    if outcome.ended:
        from atomstream.cli.result_lines import result_lines

        for line in result_lines(resolve_login(api_key, endpoint), outcome.data_id):
            console.write(line)
    return outcome.exit_code


def _check_recording(options: StreamOptions) -> None:
    """Raise ConfigError if no recording is given, or an option that is for cameras only."""
    if not options.sources:
        raise ConfigError("Nothing to stream: give a recording as SOURCE, or a camera with --camera NAME.")
    if options.follow and len(options.sources) > 1:
        raise ConfigError("--follow is for one SOURCE.")
    if options.idle_end_s is not None and not options.follow:
        raise ConfigError("--idle-end is for --follow only.")
    if options.follow and not options.pace:
        raise ConfigError("--follow streams frames as they are written: leave out --no-pace.")
    settings = options.camera_settings
    for flag, value in (
        ("--seconds", options.seconds),
        ("--frames", options.frames),
        ("--exposure", settings.exposure_ms),
        ("--gain", settings.gain),
        ("--roi", settings.roi),
        ("--pixel-format", settings.pixel_format),
    ):
        if value is not None:
            raise ConfigError(
                f"{flag} is for cameras only: leave it out, or give --camera NAME instead of SOURCE."
            )


def _stream_camera(
    options: StreamOptions, name: str, endpoint: str | None, api_key: str | None
) -> tuple[Outcome, str]:
    from atomstream.cli.camera_stream import CameraOptions, chunk_size_for, stream_camera

    reading = [
        f"--{key.replace('_', '-')}"
        for key, value in options.reading.items()
        if key != "levels" and value not in {None, "auto", "name", False}
    ]
    if options.follow or options.idle_end_s is not None:
        raise ConfigError(
            "--follow and --idle-end are for a SOURCE that grows; a camera streams until it is stopped."
        )
    if options.sources or reading or not options.pace:
        given = ", ".join(["SOURCE"] * bool(options.sources) + ["--no-pace"] * (not options.pace) + reading)
        raise ConfigError(f"With --camera leave out what is for recordings: {given}.")
    login = resolve_login(api_key, endpoint)

    def make(streamer: RHEEDStreamer, fps: float) -> str:
        chunk_size = options.chunk_size or chunk_size_for(fps)
        data_id = _initialize(options, streamer, fps, chunk_size, name.replace("/", " "))
        _calibrate(options, streamer, data_id)
        return data_id

    camera = CameraOptions(name, options.camera_settings, options.transforms, options.seconds, options.frames)
    return stream_camera(camera, make, login, options.drain_timeout_s)


def _stream(options: StreamOptions, endpoint: str | None, api_key: str | None) -> Outcome:
    from atomstream.cli.playback import Playback, PlaybackPlan, closing_soon, following, note_recording
    from atomstream.sources import ReadAhead, follow_source, open_sources
    from atomstream.streaming import RHEEDStreamer

    login = resolve_login(api_key, endpoint)
    source: FrameSource
    growing = None
    if options.follow:
        source = growing = follow_source(
            options.sources[0],
            idle_end_s=options.idle_end_s,
            fps=options.fps,
            **(
                options.reading | {"skip_damaged": True}
            ),  # the frames come only once: it goes on behind damage
        )
    else:
        source = open_sources(options.sources, **options.reading)
    fps = _fps(options, source)
    chunk_size = options.chunk_size or max(1, math.ceil(2.0 * fps))
    with closing_soon(RHEEDStreamer(login.api_key, login.endpoint, when_unreachable="raise")) as streamer:
        data_id = _initialize(options, streamer, fps, chunk_size, options.sources[0].resolve().stem)
        console.write(f"{_description(source, fps, chunk_size)}\nstream {data_id} at {login.endpoint}")
        _calibrate(options, streamer, data_id)
        levels = options.reading["levels"]
        found = {} if levels is None else {"levels": list(levels)}
        note_recording(streamer, data_id, found | options.transforms.attributes())
        plan = PlaybackPlan(streamer, data_id, source, fps, options.transforms)
        playback = Playback(console, streamer, data_id, source.n_frames, options.drain_timeout_s, source)
        with ReadAhead(source.chunks(chunk_size), stop=growing.stop if growing else None) as chunks:
            if growing is not None:
                plan.follow(growing.age_s())
                return playback.run(following(chunks, growing, playback), plan.send)
            return playback.run(plan.chunks(chunks, pace=options.pace), plan.send)


def _initialize(
    options: StreamOptions, streamer: RHEEDStreamer, fps: float, chunk_size: int, default_name: str
) -> str:
    return streamer.initialize(
        fps,
        options.rpm,
        chunk_size,
        options.name or default_name or None,
        options.sample,
        options.project_id,
        options.tags,
        options.azimuth,
    )


def _calibrate(options: StreamOptions, streamer: RHEEDStreamer, data_id: str) -> None:
    if not options.calibration:
        return
    try:
        streamer.calibrate(data_id, **options.calibration)
    except AtomstreamError as error:  # the frames come only once; a calibration can be sent later
        console.write(
            f"atomstream: The calibration was not accepted: {error} The stream continues without it."
        )


def _fps(options: StreamOptions, source: FrameSource) -> float:
    step_s: float | None = getattr(source, "time_step_s", None)  # only arrays and TIFF have times in advance
    fps = options.fps if options.fps is not None else source.fps
    if fps is None and step_s is not None:
        fps = 1.0 / step_s
    if fps is None:
        raise ConfigError(f"{source.name} does not contain a frame rate: give --fps.")
    if not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"--fps is {fps:g}; it must be finite and above 0.")
    if step_s is not None and not 0.02 < step_s * fps < 50.0:
        raise ConfigError(
            f"The frames of {source.name} lie {step_s:g} s apart by their times, but {1.0 / fps:g} s at {fps:g} frames "
            "per second. Give the unit of the times (such as --time-unit ms), or --ignore-times to use the rate alone."
        )
    return fps


def _description(source: FrameSource, fps: float, chunk_size: int) -> str:
    height, width = source.frame_shape
    length = counted(source.n_frames, "frame") if source.n_frames else "frames"
    lasting = f", {source.n_frames / fps:.1f} s" if source.n_frames else ""
    return (
        f"{source.name}: {length} of {height}x{width} {source.dtype}{lasting} at {fps:g} fps, "
        f"in chunks of {chunk_size}"
    )
