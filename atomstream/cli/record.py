"""``atomstream record``: a capture page in the browser, on the camera's PC."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atomstream.cli.camera_options import camera_options, settings_from, transform_options, transforms_from
from atomstream.cli.options import connection_options
from atomstream.config import resolve_spool_dir
from atomstream.errors import ConfigError

if TYPE_CHECKING:
    from atomstream.cli.record_run import RecordPlan

_UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}


@click.command()
@click.option(
    "--source",
    metavar="SOURCE",
    help="Open this source at once: simulator, camera:NAME, file:PATH, screen or watch:DIR.",
)
@camera_options
@transform_options
@click.option("--fps", type=float, help="Frame rate to set in 1/s [default: that of camera or file].")
@click.option("--name", default="", help="Name of the recording [default: date and time].")
@click.option("--sample", help="Physical sample: a name, or a UUID.")
@click.option("--rpm", default=0.0, show_default=True, help="Rotations per minute; 0 for stationary RHEED.")
@click.option("--azimuth", help="Crystal azimuth, such as [110]; stationary streams only.")
@click.option(
    "--before",
    default="10min",
    show_default=True,
    metavar="TIME",
    help="How much the dashcam keeps, such as 90s, 10min, 1h; 0: nothing.",
)
@click.option(
    "--before-max",
    type=click.FloatRange(min=0.01),
    metavar="GB",
    help="Disk space of the dashcam [10, or a quarter of the free space].",
)
@click.option("--start", is_flag=True, help="Begin to record at once.")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="With --start: end after this time.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port of the page [any free one].")
@click.option("--no-open", is_flag=True, help="Do not open a browser; print the address.")
@click.option(
    "--spool-dir",
    type=click.Path(path_type=Path),
    help="Folder of the recordings [else that of all streams].",
)
@connection_options
def record(endpoint: str | None, api_key: str | None, **arguments: Any) -> int:
    """Record a camera from a page in the browser. No Python and no server are needed.

    The page shows the live picture with its histogram, and has Record, Pause, Stop and marks. It can only be opened
    on this computer. The last minutes are always kept (the dashcam), so a growth can be saved from before the button
    was pressed. Recordings are kept on this computer and sent to the server of `atomstream login`; without one they
    are sent after the first login. Ctrl-C ends the recording and saves it.

    \b
    Examples:
      atomstream record
      atomstream record --source simulator
      atomstream record --source camera:basler:0 --exposure 8 --before 30min
      atomstream record --source file:growth.tif --fps 20 --start --name "old growth"
    """
    from atomstream.cli.record_run import run_record

    return run_record(_plan(endpoint, api_key, arguments))


def _plan(endpoint: str | None, api_key: str | None, arguments: dict[str, Any]) -> RecordPlan:
    from platformdirs import user_state_path

    from atomstream.cli.record_run import RecordPlan
    from atomstream.record.capture import CapturePlan
    from atomstream.record.recording import RecordingRequest
    from atomstream.record.settings import RecorderSettings

    before_s = parse_time(arguments["before"])
    transforms, settings = transforms_from(arguments, None), settings_from(arguments, arguments["fps"])
    login, note = _login(api_key, endpoint)
    largest = arguments["before_max"]
    source, start = arguments["source"], arguments["start"]
    if start and source is None:
        raise ConfigError("--start needs a --source.")
    if arguments["seconds"] is not None and not start:
        raise ConfigError("--seconds ends a recording that --start begins: give --start too.")
    return RecordPlan(
        settings=RecorderSettings(
            spool_dir=resolve_spool_dir(arguments["spool_dir"]),
            state_dir=user_state_path("atomstream", appauthor=False) / "record",
            login=login,
            login_note=note,
            before_s=before_s,
            dashcam_bytes=None if largest is None else int(largest * 1e9),
        ),
        capture=None if source is None else CapturePlan(source, settings, transforms),
        request=RecordingRequest(
            arguments["name"], arguments["sample"], arguments["rpm"], arguments["azimuth"]
        )
        if start
        else None,
        name=arguments["name"],
        port=arguments["port"],
        open_page=not arguments["no_open"],
        seconds=arguments["seconds"],
    )


def _login(api_key: str | None, endpoint: str | None) -> tuple[Any, str]:
    """The server and an empty text; or None, and the sentence why recordings stay on this computer.

    Raises:
        ConfigError: a server or a key was given, and is invalid.
    """
    from atomstream.login import resolve_login

    try:
        return resolve_login(api_key, endpoint), ""
    except ConfigError:
        if endpoint or api_key:
            raise
        return None, (
            "There is no server yet: recordings are kept on this computer. They are sent after `atomstream login`, "
            "when the recorder is started again."
        )


def parse_time(text: str) -> float:
    """A time span such as ``90s``, ``10min``, ``1h`` or ``600`` in s.

    Raises:
        ConfigError: the text has another form.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(s|min|h|)\s*", text)
    if found is None:
        raise ConfigError(f"--before {text!r} is not a time, such as 90s, 10min or 1h.")
    return float(found[1]) * _UNITS[found[2]]
