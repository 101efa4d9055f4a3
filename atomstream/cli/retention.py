"""``atomstream retention``: preview and apply the rules by which frames of old streams are removed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from atomstream.cli.configuration import merged
from atomstream.cli.console import console, printable
from atomstream.cli.exit_codes import ExitCode, require_server
from atomstream.cli.options import connection_options
from atomstream.cli.project import call_service
from atomstream.counted import counted
from atomstream.errors import ConfigError

if TYPE_CHECKING:
    from atomstream.service.api import ServiceApi

POLL_S: Final = 1.0


@click.group()
def retention() -> None:
    """Thin old streams by the rules under [retention] of the server's configuration file.

    Results, profiles and marks are kept. A running server applies its rules once a day by itself; docs/server.md
    describes them.
    """


_config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file of a server that is not running: its data folder and its rules are used.",
)


@retention.command()
@_config_option
@connection_options
def preview(config: Path | None, endpoint: str | None, api_key: str | None) -> int:
    """Print what a run would do now, and change nothing.

    Without --config it asks a running server (--endpoint).

    \b
    Examples:
      atomstream retention preview --endpoint https://mbe-pc.lab.local:8765
      atomstream retention preview --config D:/rheed/server.toml
    """
    if config is not None:
        report = _offline(config, preview=True)
    else:
        report = call_service(lambda api: api.retention(preview=True), endpoint, api_key)
    return _show(report, "would become free, estimated")


@retention.command()
@_config_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@connection_options
def run(config: Path | None, yes: bool, endpoint: str | None, api_key: str | None) -> int:
    """Apply the rules now. Asks for confirmation: frames that are removed can only come back from a backup.

    Without --config it asks a running server (--endpoint) to do it, and waits.

    \b
    Example:
      atomstream retention run --endpoint https://mbe-pc.lab.local:8765
    """
    if not yes and not click.confirm("Remove frames of old streams for ever, by the rules?", default=False):
        click.echo("Nothing was changed.")
        return ExitCode.INCOMPLETE
    report = _offline(config, preview=False) if config is not None else _online(endpoint, api_key)
    return _show(report, "became free")


def _online(endpoint: str | None, api_key: str | None) -> Any:
    async def run_and_wait(api: ServiceApi) -> Any:
        before = await api.retention()
        await api.run_retention()
        while True:
            report: Any = await api.retention()
            if report not in (None, before) and not report["running"]:
                return report
            await asyncio.sleep(POLL_S)

    return call_service(run_and_wait, endpoint, api_key)


def _offline(config: Path, *, preview: bool) -> Any:
    require_server()
    import msgspec

    from atomstream.server import ServerSettings
    from atomstream.server.runner import opened_folder

    values = merged({}, os.environ, config, ServerSettings.limits())
    if values["retention"] is None:
        raise ConfigError(f"{config} has no rules of retention: add a table [retention].")
    settings = ServerSettings(data_dir=values["data"], retention=values["retention"])

    async def work() -> Any:
        async with opened_folder(settings) as context:
            done = await (context.retention.preview() if preview else context.retention.run())
        return msgspec.to_builtins(done)

    return asyncio.run(work())


def _show(report: Mapping[str, Any], what: str) -> int:
    for action in report["actions"]:
        kept = f"1 frame in {action['every']} stays" if action["every"] else "no frame stays"
        name = printable(action["name"])
        click.echo(
            f"{action['data_id']}  {action['freed_bytes'] / 1e6:9.1f} MB  {kept}: {action['why']}  {name}"
        )
    for data_id, why in report["skipped"]:
        click.echo(f"{data_id}  not changed: {why}")
    for sentence in report["over"]:
        click.echo(sentence)
    for data_id, why in report["failed"]:
        console.write(f"atomstream: stream {data_id} was not changed completely: {why}")
    freed = sum(action["freed_bytes"] for action in report["actions"])
    click.echo(f"{counted(len(report['actions']), 'stream')}, {freed / 1e6:.1f} MB {what}.")
    return ExitCode.INCOMPLETE if report["failed"] else ExitCode.DONE
