"""``atomstream demo``: streams a simulated growth to an embedded server and compares every pixel stored."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from atomstream.cli.exit_codes import require_server
from atomstream.cli.options import data_dir_option
from atomstream.config import home_expanded
from atomstream.errors import ConfigError
from atomstream.protocol import MAX_RPM

if TYPE_CHECKING:
    from atomstream.cli.demo_run import DemoPlan


@click.command()
@click.option(
    "--seconds", default=15.0, show_default=True, type=click.FloatRange(0.05, 3600.0), help="Duration in s."
)
@click.option(
    "--fps", default=120.0, show_default=True, type=click.FloatRange(0.1, 10000.0), help="Frame rate in 1/s."
)
@click.option("--size", default="480x640", show_default=True, metavar="HxW", help="Frame size in pixels.")
@click.option(
    "--rpm",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0.0, MAX_RPM),
    help="Rotation in 1/min; 0: none.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the simulated noise."
)
@data_dir_option("atomstream-demo", "Folder for the archive.")
@click.option(
    "--port",
    default=0,
    type=click.IntRange(0, 65535),
    help="Port of the embedded server [default: any free one].",
)
@click.option(
    "--open",
    "open_page",
    is_flag=True,
    help="Open the page of the growth in a browser, logged in; the server then runs until Ctrl-C.",
)
def demo(
    seconds: float,
    fps: float,
    size: str,
    rpm: float,
    seed: int,
    data_dir: Path,
    port: int,
    *,
    open_page: bool,
) -> int:
    """Stream a simulated growth over HTTP, and verify the stored frames.

    Starts a server in a child process, simulates a growth at camera speed, streams it with the normal client, and
    compares every frame in the archive with the frame that was sent. The exit code is 0 only if all are equal.
    No camera, network or account is needed. The archive is not deleted.

    \b
    Examples:
      atomstream demo
      atomstream demo --open
      atomstream demo --seconds 60 --rpm 15
      atomstream demo --size 1024x1024 --fps 60 --data D:/rheed-demo
    """
    require_server()
    from atomstream.cli.demo_run import DemoPlan, run_demo

    height, width = _size(size)
    n_frames = max(1, round(seconds * fps))
    plan = DemoPlan(
        n_frames, fps, height, width, rpm, seed, home_expanded(data_dir).absolute(), port, open_page
    )
    _check_disk_space(plan)
    return run_demo(plan)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*[xX]\s*([0-9]{1,5})\s*", text)
    if match is None or "0" in (match[1], match[2]):
        raise ConfigError(f"--size {text!r} is not HEIGHTxWIDTH in pixels, such as 480x640.")
    return int(match[1]), int(match[2])


def _check_disk_space(plan: DemoPlan) -> None:
    """Raise ConfigError if the free disk space is smaller than the raw frames."""
    folder = next(path for path in (plan.data_dir, *plan.data_dir.parents) if path.exists())
    free, needed = shutil.disk_usage(folder).free, plan.nbytes
    if free < needed:
        raise ConfigError(
            f"The demo writes up to {needed / 1e6:.0f} MB, but {folder} has {free / 1e6:.0f} MB free: "
            "choose another --data, or fewer --seconds."
        )
