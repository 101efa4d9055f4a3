"""``atomstream streams``: list the streams of a server, and end, rename, move or delete them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from atomstream.cli.console import printable
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.options import connection_options
from atomstream.cli.project import call_service
from atomstream.errors import ConfigError, NotFoundError
from atomstream.protocol import normalized_name

if TYPE_CHECKING:
    from atomstream.records import Json
    from atomstream.service.api import ServiceApi
    from atomstream.service.payloads import NamedItem


@click.group()
def streams() -> None:
    """List, end, rename, move and delete the streams of an atomstream server."""


@streams.command(name="list")
@click.argument("keywords", nargs=-1)
@connection_options
def list_streams(keywords: tuple[str, ...], endpoint: str | None, api_key: str | None) -> int:
    """Print UUID, status, length, project and name of each stream, the newest first.

    With KEYWORDS, only streams that have all of them in their name, sample or tags.

    \b
    Example:
      atomstream streams list GaN
    """
    for found in call_service(lambda api: api.list_streams(keywords), endpoint, api_key):
        project = printable(found.project or "-")
        click.echo(
            f"{found.data_id}  {found.status:<18}  {found.length_s:8.1f} s  {project}  {printable(found.name)}"
        )
    return ExitCode.DONE


@streams.command()
@click.argument("data_ids", nargs=-1, required=True, metavar="DATA_ID...")
@connection_options
def end(data_ids: tuple[str, ...], endpoint: str | None, api_key: str | None) -> int:
    """End streams that nobody ends any more, such as those of a client that was switched off.

    A chunk that arrives later is still stored.
    """

    async def end_all(api: ServiceApi) -> None:
        for data_id in data_ids:
            await api.end_stream(data_id)
            click.echo(f"Ended {data_id}.")

    call_service(end_all, endpoint, api_key)
    return ExitCode.DONE


@streams.command()
@click.argument("data_id")
@click.argument("name")
@connection_options
def rename(data_id: str, name: str, endpoint: str | None, api_key: str | None) -> int:
    """Give the stream DATA_ID another NAME.

    \b
    Example:
      atomstream streams rename 0aa00e56-e706-47cd-be49-6275ee0651a1 "GaN on Si, run 12"
    """
    call_service(lambda api: api.rename_stream(data_id, name), endpoint, api_key)
    click.echo(f"Renamed {data_id}.")
    return ExitCode.DONE


@streams.command()
@click.argument("data_id")
@click.argument("project", required=False)
@click.option("--no-project", is_flag=True, help="Remove the stream from its project.")
@click.option("--sample", help="Name or UUID of the new sample of the stream.")
@click.option("--new-sample", help="Name of the stream's new sample, which is created if it does not exist.")
@click.option("--no-sample", is_flag=True, help="Remove the link to the stream's sample.")
@connection_options
def move(
    data_id: str,
    project: str | None,
    no_project: bool,
    sample: str | None,
    new_sample: str | None,
    no_sample: bool,
    endpoint: str | None,
    api_key: str | None,
) -> int:
    """Move the stream DATA_ID to another PROJECT, given by its name or UUID, or to another sample.

    Frames, results and marks stay as they are. The project decides who sees the stream, and which rule of retention
    applies to it. The sample decides which signals of instruments are shown with its frames.

    \b
    Examples:
      atomstream streams move 0aa00e56-e706-47cd-be49-6275ee0651a1 "GaN on Si"
      atomstream streams move 0aa00e56-e706-47cd-be49-6275ee0651a1 --sample "Wafer 12"
    """
    if project is not None and no_project:
        raise click.UsageError("Give the project's name or UUID, or --no-project.")
    if sum((sample is not None, new_sample is not None, no_sample)) > 1:
        raise click.UsageError("Give one of --sample, --new-sample and --no-sample.")
    if not (project or no_project or sample or new_sample or no_sample):
        raise click.UsageError("Give the project's name or UUID, --no-project, or a sample (--sample NAME).")

    async def move_one(api: ServiceApi) -> tuple[str, ...]:
        to: dict[str, Json] = {}
        if project is not None or no_project:
            known = () if project is None else await api.list_projects()
            to["project_id"] = None if project is None else _find("project", known, project)
        if new_sample is not None:
            to["sample_name"] = new_sample
        elif sample is not None or no_sample:
            known = () if sample is None else await api.list_samples()
            to["physical_sample_id"] = None if sample is None else _find("sample", known, sample)
        return await api.move_stream(data_id, to)

    for change in call_service(move_one, endpoint, api_key):
        click.echo(printable(f"{data_id} {change}."))
    click.echo(f"Moved {data_id}.")
    return ExitCode.DONE


def _find(kind: str, known: Iterable[NamedItem], text: str) -> str:
    for listed in known:
        if text.lower() == listed.id.lower() or normalized_name(text) == normalized_name(listed.name):
            return listed.id
    hints = {
        "project": "'atomstream project list' shows them",
        "sample": "--new-sample makes one",
    }
    raise ConfigError(f"There is no {kind} {text!r}; {hints[kind]}.")


@streams.command()
@click.argument("data_ids", nargs=-1, required=True, metavar="DATA_ID...")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@connection_options
def delete(data_ids: tuple[str, ...], yes: bool, endpoint: str | None, api_key: str | None) -> int:
    """Delete streams for ever, with their frames, results and marks. Asks for confirmation.

    Uploads to a deleted stream are refused. Only a backup can bring a stream back.

    \b
    Example:
      atomstream streams delete 0aa00e56-e706-47cd-be49-6275ee0651a1
    """
    if not yes and not click.confirm(f"Delete {len(data_ids)} stream(s) for ever?", default=False):
        click.echo("Nothing was deleted.")
        return ExitCode.INCOMPLETE

    async def delete_all(api: ServiceApi) -> None:
        for data_id in data_ids:
            try:
                await api.delete_stream(data_id)
            except NotFoundError as error:
                if error.status != 410:  # already deleted, perhaps by an earlier try whose answer was lost
                    raise
            click.echo(f"Deleted {data_id}.")

    call_service(delete_all, endpoint, api_key)
    return ExitCode.DONE
