"""``atomstream serve`` runs the server; ``atomstream reindex`` rebuilds its catalogue."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atomstream.cli.configuration import LOG_FORMATS, LOG_LEVELS, merged
from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode, require_server
from atomstream.cli.key_argument import api_key_options
from atomstream.cli.service_urls import BUS_HELP, service_url
from atomstream.config import environment_api_key, home_expanded, is_loopback, read_key_file
from atomstream.counted import counted

if TYPE_CHECKING:
    from atomstream.server import RunningServer, ServerSettings
    from atomstream.server.ports.bus_address import BusAddress
    from atomstream.server.postgres.address import PostgresAddress


@click.command()
@click.option(
    "--config",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="File with settings (TOML) [else $ATOMSTREAM_SERVER_CONFIG]; options and environment variables override it.",
)
@click.option("--host", help="Address to listen on; 0.0.0.0 for all.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0: any free one.  [default: 8765]")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for archives, catalogue and API key hash.  [default: atomstream-data]",
)
@api_key_options("API key to accept [else $ATOMSTREAM_API_KEY, else one made at the first start].")
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Another host name of this server, as clients use it; may be repeated.",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Change a limit, such as max_frame_bytes=67108864; may be repeated. docs/server.md lists all of them.",
)
@click.option(
    "--tls",
    type=click.Choice(["self-signed", "off"]),
    help="Serve https with a certificate that is made once and kept in the data folder.",
)
@click.option(
    "--tls-cert",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Certificate (PEM, with its chain) for https; read again when the file changes.",
)
@click.option(
    "--tls-key", metavar="PATH", type=click.Path(path_type=Path), help="Key of the certificate (PEM)."
)
@click.option(
    "--insecure-network/--no-insecure-network",
    default=None,
    help="Allow other computers without TLS. Anyone on the network path can then read the API key and the frames.",
)
@service_url(
    "--catalogue",
    "PostgreSQL database that several servers share: postgresql://USER@HOST/DATABASE.  [default: SQLite in --data]",
)
@service_url(
    "--store",
    "S3 bucket with the streams, for several servers: s3://BUCKET/PREFIX?endpoint=URL. --data is then a cache.",
)
@service_url("--bus", BUS_HELP)
@click.option(
    "--alarm-webhooks-file",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="File with the addresses to which alarms are sent, one on each line.",
)
@click.option("--public-url", metavar="URL", help="URL of this server as clients see it, behind a proxy.")
@click.option(
    "--log-format", type=click.Choice(LOG_FORMATS), help="Format of the messages on stderr.  [default: text]"
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="Lowest level shown.  [default: warning]")
@click.option("--check", is_flag=True, help="Check what a start would need, print it, and do not start.")
def serve(
    config: Path | None, api_key: str | None, limits: tuple[str, ...], *, check: bool, **given: Any
) -> int:
    """Run a server that stores and analyses streams on this computer.

    Prints one line with its URL on stdout when it listens. Ctrl-C stops it; data that it acknowledged is safe.
    The first start makes an API key, prints it once and stores only its hash.

    \b
    Examples:
      atomstream serve
      atomstream serve --data D:/rheed --port 9000
      atomstream serve --config D:/rheed/server.toml
      atomstream serve --config D:/rheed/server.toml --check      (starts nothing)
      atomstream serve --host 0.0.0.0 --allow-host mbe-pc.lab.local --tls self-signed   (for the whole network)
    \b
    Each stream is a Zarr v3 group, readable while it grows:
      DIR/streams/<data_id>/frames.zarr
    """
    require_server()
    from atomstream.server import ServerSettings, run_server
    from atomstream.server.alarms.webhooks import read_addresses
    from atomstream.server.oidc_settings import OidcSettings

    known = ServerSettings.limits()
    flags = {name: value for name, value in given.items() if value not in (None, ())}
    values = merged({**flags, **read_limits(limits, known)}, os.environ, config, known)
    console.set_log(values.pop("log_format"), values.pop("log_level"))
    key_file = values.pop("api_key_file")
    hooks_file = values.pop("alarm_webhooks_file")
    oidc, catalogue, bus = values.pop("oidc"), values.pop("catalogue"), values.pop("bus")
    settings = ServerSettings(
        alarm_webhooks=() if hooks_file is None else read_addresses(hooks_file),
        oidc=None if oidc is None else OidcSettings.from_table(*oidc),
        catalogue=None if catalogue is None else catalogue_address(catalogue),
        bus=None if bus is None else bus_address(bus),
        data_dir=values.pop("data"),
        api_key=api_key or environment_api_key() or (None if key_file is None else read_key_file(key_file)),
        tls=None if values["tls"] == "off" else values["tls"],
        **{name: value for name, value in values.items() if name != "tls"},
    )
    if check:
        return _check(settings)
    asyncio.run(run_server(settings, on_ready=_announce))
    return ExitCode.DONE


def catalogue_address(url: str) -> PostgresAddress:
    """The address of a catalogue, with the secrets of the environment; raises ConfigError."""
    from atomstream.server.postgres.address import PostgresAddress

    return PostgresAddress.parse(url, os.environ)


def bus_address(url: str) -> BusAddress:
    """The address of a message bus, with the secrets of the environment; raises ConfigError."""
    from atomstream.server.ports.bus_address import BusAddress

    return BusAddress.parse(url, os.environ)


def _check(settings: ServerSettings) -> ExitCode:
    from atomstream.server.preflight import check_start

    findings = [(one.name, one.ok, one.text) for one in check_start(settings)]
    if settings.catalogue is not None or settings.store is not None or settings.bus is not None:
        from atomstream.cluster.check import check_cluster

        services = asyncio.run(check_cluster(settings.catalogue, settings.store, settings.bus))
        findings += [(one.name, one.ok, one.text) for one in services]
    for name, ok, text in findings:
        click.echo(f"{'ok    ' if ok else 'FAILS '} {name:12} {text}")
    return ExitCode.DONE if all(ok for _, ok, _ in findings) else ExitCode.USAGE


def read_limits(given: tuple[str, ...], known: dict[str, int | float]) -> dict[str, Any]:
    """The values of the options --limit NAME=NUMBER; raises BadParameter."""
    found: dict[str, Any] = {}
    for text in given:
        name, _, number = text.partition("=")
        if name not in known:
            raise click.BadParameter(f"{name!r} is not a limit; there are {', '.join(sorted(known))}.")
        try:
            found[name] = type(known[name])(number)
        except ValueError:
            raise click.BadParameter(f"{text!r}: {number!r} is not a number for {name}.") from None
    return found


def _announce(server: RunningServer) -> None:
    """Print the notes to stderr first, and then the line on stdout that scripts wait for."""
    console.write(f"Data folder  {server.settings.data_dir}")
    console.write(f"API key      {_about_key(server)}")
    if server.certificate is not None:
        console.write(
            f"Certificate  SHA-256 {server.certificate.fingerprint}\n"
            "             Clients that do not trust it by an authority need it as ATOMSTREAM_TLS_FINGERPRINT."
        )
    if not is_loopback(server.settings.host):
        console.write(f"Network      {_about_network(server)}")
    click.echo(f"atomstream listens at {server.url}")  # flushes


def _about_key(server: RunningServer) -> str:
    if server.settings.api_key is not None:
        return "as given; earlier keys are not valid any more"
    if server.api_key is None:
        return "that of an earlier start; only its hash is stored (keys.json in the data folder)"
    return (
        f"{server.api_key}\n"
        "             New, and shown only once: save it, for example as ATOMSTREAM_API_KEY."
    )


def _about_network(server: RunningServer) -> str:
    reached = "Other computers can reach this server. Anyone with the API key can read and write."
    if server.certificate is not None:
        return reached
    return f"{reached}\n             The traffic is plain http, as --insecure-network allows: others can read the key."


@click.command()
@click.option(
    "--data",
    "data_dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder of a server that is not running.",
)
def reindex(data_dir: Path) -> int:
    """Rebuild the catalogue of a server from its files.

    The catalogue is a cache of the archives. Use this after a disk failure, or after streams were copied from
    another server. Archives are only read.

    \b
    Example:
      atomstream reindex --data D:/rheed
    """
    require_server()
    from atomstream.server import reindex as rebuild

    made = asyncio.run(rebuild(home_expanded(data_dir).absolute()))
    click.echo(
        f"The catalogue holds {counted(made.streams, 'stream')}, {counted(made.samples, 'sample')}, "
        f"{counted(made.tags, 'tag')} and {counted(made.projects, 'project')}."
    )
    return ExitCode.DONE
