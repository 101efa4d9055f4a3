"""``atomstream serve``: the embedded server on this computer."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode, need_server
from atomstream.config import environment_api_key

if TYPE_CHECKING:
    from atomstream.server import RunningServer

DEFAULT_DATA: Final = Path("atomstream-data")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option(
    "--data",
    "data_dir",
    default=DEFAULT_DATA,
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the archives, the catalogue and the key's hash.",
)
@click.option(
    "--api-key", help="The one key to accept [else $ATOMSTREAM_API_KEY, else one made at the first start]."
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A further name by which clients call this server; may be repeated.",
)
@click.option("--public-url", metavar="URL", help="Its address as clients see it, behind a proxy.")
def serve(
    host: str,
    port: int,
    data_dir: Path,
    api_key: str | None,
    allowed_hosts: tuple[str, ...],
    public_url: str | None,
) -> int:
    """Keep the frames of this lab on this computer.

    Prints one line with its URL on stdout once it listens; Ctrl-C stops it, and nothing that it acknowledged is
    lost. The first start makes an API key, prints it once and keeps only its hash.

    \b
    Examples:
      atomstream serve
      atomstream serve --data D:/rheed --port 9000
      atomstream serve --host 0.0.0.0 --allow-host mbe-pc.lab.local     (for the whole network)
    \b
    Each stream is a Zarr v3 group, readable while it grows:
      DIR/streams/<data_id>/frames.zarr
    """
    need_server()
    from atomstream.server import ServerSettings, run_server

    settings = ServerSettings(
        data_dir=data_dir,
        host=host,
        port=port,
        api_key=api_key or environment_api_key(),
        allowed_hosts=allowed_hosts,
        public_url=public_url,
    )
    asyncio.run(run_server(settings, on_ready=_announce))
    return ExitCode.DONE


def _announce(server: RunningServer) -> None:
    """Notes on stderr first: who waits for the line on stdout has seen all of it by then."""
    console.say(f"Data folder  {server.settings.data_dir}")
    console.say(f"API key      {_about_key(server)}")
    if not _is_loopback(server.settings.host):
        console.say(
            "Network      other computers can reach this server, and whoever has the key may read and write. "
            "The traffic is plain http: outside a trusted network put a TLS proxy before it."
        )
    click.echo(f"atomstream listens at {server.url}")  # flushes


def _about_key(server: RunningServer) -> str:
    if server.settings.api_key is not None:
        return "the one given (--api-key or ATOMSTREAM_API_KEY)"
    if server.api_key is None:
        return "made at an earlier start; only its hash is kept (keys.json in the data folder)"
    return (
        f"{server.api_key}\n"
        "             Made just now and shown this once: keep it, for example as ATOMSTREAM_API_KEY."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


# ``atomstream reindex``: the catalogue, made anew from the archives.


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
