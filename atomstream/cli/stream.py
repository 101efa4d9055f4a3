"""``atomstream stream``: a recording, sent as a camera would."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atomstream.cli.console import console
from atomstream.cli.options import calibration_options, connection_options, take_calibration
from atomstream.config import resolve_api_key, resolve_endpoint
from atomstream.errors import AtomstreamError, ConfigError

if TYPE_CHECKING:
    from atomstream.cli.playback import Outcome
    from atomstream.sources import FrameSource
    from atomstream.streaming import RHEEDStreamer


@dataclass(frozen=True, slots=True)
class Playing:
    """What was asked for, as :func:`stream` documents it."""

    source: Path
    dataset: str | None
    fps: float | None
    chunk_size: int | None
    rpm: float
    levels: tuple[float, float] | None
    name: str | None
    sample: str | None
    project_id: str | None
    tags: tuple[str, ...]
    azimuth: str | None
    pace: bool
    drain_timeout_s: float | None
    calibration: dict[str, Any]


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--fps", type=float, help="Frames a second of the camera [default: what the file says].")
@click.option("--chunk-size", type=int, help="Frames in a chunk [default: 2 s of them].")
@click.option("--rpm", default=0.0, show_default=True, help="Rotations a minute; 0 for stationary RHEED.")
@click.option("--dataset", metavar="NAME", help="Which array of an .npz or a Zarr group [default: frames].")
@click.option("--levels", nargs=2, type=float, metavar="LOW HIGH", help="Scale deeper pixels to 8 bits.")
@click.option("--name", help="How the stream is listed [default: the file's name].")
@click.option("--sample", help="Physical sample: a name (created if new) or the UUID of one.")
@click.option("--project", "project_id", metavar="UUID", help="Project that shall follow the sample.")
@click.option("--tag", "tags", multiple=True, help="A tag's name (created if new) or UUID; may be repeated.")
@click.option("--azimuth", help="The crystal's azimuth, such as [110]; stationary streams only.")
@click.option("--pace/--no-pace", default=True, help="In real time (default), or as fast as it goes.")
@click.option(
    "--drain-timeout", "drain_timeout_s", type=float, metavar="S", help="Longest wait at the end [600]."
)
@calibration_options
@connection_options
def stream(endpoint: str | None, api_key: str | None, **asked: Any) -> int:
    """Stream the recording SOURCE in real time, as its camera would have.

    SOURCE is a video, a TIFF stack, .npy, .npz, a Zarr folder or a folder of images; uint8, or uint16 towards an
    atomstream server. While it runs stderr shows frames, MB/s on the network, the backlog, and the watermark: up
    to which chunk everything is settled. The report at the end, on stdout, says what is stored.

    With a calibration (--beam-energy and those after it) an atomstream server tells rates in nm/s, the lattice
    parameter in angstrom, and strain.

    Ctrl-C stops reading and delivers what was read; a second one leaves at once.

    \b
    Examples:
      atomstream stream growth.npy --fps 120 --endpoint http://127.0.0.1:8765
      atomstream stream growth.avi --rpm 15 --sample "GaN-2025-001" --tag night
      atomstream stream stack.tif --fps 20 --levels 0 4095 --no-pace
      atomstream stream growth.npy --fps 120 --layer-thickness 0.3905 --layer-unit "unit cell"
    """
    from atomstream.cli.playback import playback_report

    calibration = take_calibration(asked)
    playing = Playing(calibration=calibration, **asked)
    outcome = _play(playing, endpoint, api_key)
    click.echo(playback_report(outcome))
    return outcome.exit_code


def _play(playing: Playing, endpoint: str | None, api_key: str | None) -> Outcome:
    from atomstream.cli.playback import Playback, PlaybackPlan, leaving
    from atomstream.sources import open_source
    from atomstream.streaming import RHEEDStreamer

    key = resolve_api_key(api_key)
    server = resolve_endpoint(endpoint, key)
    source = open_source(playing.source, dataset=playing.dataset)
    fps = _fps(playing, source)
    chunk_size = playing.chunk_size or max(1, math.ceil(2.0 * fps))
    _check_levels(playing.levels)
    with leaving(RHEEDStreamer(key, server)) as streamer:
        data_id = _initialize(playing, streamer, fps, chunk_size)
        console.say(f"{_about(source, fps, chunk_size)}\nstream {data_id} at {server}")
        _calibrate(playing, streamer, data_id)
        replay = PlaybackPlan(streamer, data_id, source, fps, playing.levels)
        playback = Playback(console, streamer, data_id, source.n_frames, playing.drain_timeout_s)
        return playback.run(replay.chunks(chunk_size, pace=playing.pace), replay.send)


def _initialize(playing: Playing, streamer: RHEEDStreamer, fps: float, chunk_size: int) -> str:
    return streamer.initialize(
        fps,
        playing.rpm,
        chunk_size,
        playing.name or playing.source.resolve().stem or None,
        playing.sample,
        playing.project_id,
        playing.tags,
        playing.azimuth,
    )


def _calibrate(playing: Playing, streamer: RHEEDStreamer, data_id: str) -> None:
    if not playing.calibration:
        return
    try:
        streamer.calibrate(data_id, **playing.calibration)
    except AtomstreamError as error:  # frames come once, a calibration can be given later
        console.say(f"atomstream: The calibration was not taken: {error} The stream goes on without it.")


def _check_levels(levels: tuple[float, float] | None) -> None:
    if levels is not None and not (math.isfinite(levels[0]) and levels[0] < levels[1] < math.inf):
        raise ConfigError(f"--levels {levels[0]:g} {levels[1]:g}: LOW must be below HIGH, and both finite.")


def _fps(playing: Playing, source: FrameSource) -> float:
    fps = playing.fps if playing.fps is not None else source.fps
    if fps is None:
        raise ConfigError(f"{source.name} does not say how many frames a second it has: give --fps.")
    if not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"--fps is {fps:g}; it must be finite and above 0.")
    return fps


def _about(source: FrameSource, fps: float, chunk_size: int) -> str:
    height, width = source.frame_shape
    length = f"{source.n_frames} frames" if source.n_frames else "frames"
    lasting = f", {source.n_frames / fps:.1f} s" if source.n_frames else ""
    return (
        f"{source.name}: {length} of {height}x{width} {source.dtype}{lasting} at {fps:g} fps, "
        f"in chunks of {chunk_size}"
    )
