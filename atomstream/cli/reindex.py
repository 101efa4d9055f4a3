"""``atomstream reindex``: the catalogue, made anew from the archives."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from atomstream.cli.exits import ExitCode, need_server


@click.command()
@click.option(
    "--data",
    "data_dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The data folder of a server that does not run.",
)
def reindex(data_dir: Path) -> int:
    """Rebuild a server's catalogue from its files.

    The archives are the truth and the catalogue a cache: after a crash of the disk, or when streams were copied
    in from another server, this makes it right again. Archives are only read.

    \b
    Example:
      atomstream reindex --data D:/rheed
    """
    need_server()
    from atomstream.server import reindex as rebuild

    made = asyncio.run(rebuild(data_dir.expanduser().absolute()))
    click.echo(
        f"The catalogue holds {made.streams} streams, {made.samples} samples, {made.tags} tags and "
        f"{made.projects} projects."
    )
    return ExitCode.DONE
