"""``atomstream analyse``: an analysis process of a cluster."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from atomstream.cli.configuration import LOG_FORMATS, LOG_LEVELS, merged
from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode, require_server
from atomstream.cli.serve import bus_address, read_limits
from atomstream.cli.service_urls import BUS_HELP, service_url

GAP_WAIT_S = 30.0
"""A chunk may come much later than its successor: its server was killed, or a service was unreachable for some time."""


@click.command()
@click.option(
    "--config",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The file with the settings of the servers (TOML) [else $ATOMSTREAM_SERVER_CONFIG].",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of this process, a cache of the store.  [default: atomstream-data]",
)
@service_url("--store", "S3 bucket with the streams: s3://BUCKET/PREFIX?endpoint=URL")
@service_url("--bus", BUS_HELP)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Change a limit of the analysis, such as analysis_workers=4; may be repeated.",
)
@click.option(
    "--log-format", type=click.Choice(LOG_FORMATS), help="Format of the messages on stderr.  [default: text]"
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="Lowest level shown.  [default: warning]")
def analyse(config: Path | None, limits: tuple[str, ...], **given: Any) -> int:
    """Analyse streams that servers of a cluster store (atomstream serve --store URL --bus URL).

    Any number of these processes share the streams. If one ends, the others continue with its streams within some
    seconds, from the last stored state. Ctrl-C stops it.

    \b
    Example:
      atomstream analyse --data /var/cache/atomstream \\
        --store "s3://rheed?endpoint=https://s3.lab.example" --bus nats://nats.lab.example:4222
    """
    require_server()
    from atomstream.server import ServerSettings
    from atomstream.server.analyst import run_analyst

    known = ServerSettings.limits()
    chosen = {"gap_wait_s": GAP_WAIT_S, **read_limits(limits, known)}
    flags = {name: value for name, value in given.items() if value is not None}
    values = merged({**flags, **chosen}, os.environ, config, known)
    console.set_log(values["log_format"], values["log_level"])
    bus = values["bus"]
    settings = ServerSettings(
        data_dir=values["data"],
        store=values["store"],
        bus=None if bus is None else bus_address(bus),
        **{name: values[name] for name in known if name in values},
    )

    def announce(_analyst: object) -> None:
        click.echo(f"atomstream analyses streams of {settings.store}")

    asyncio.run(run_analyst(settings, announce))
    return ExitCode.DONE
