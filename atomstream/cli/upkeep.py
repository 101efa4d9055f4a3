"""``atomstream backup``, ``restore``, ``check`` and ``gc``: maintenance of a server's data folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from atomstream.cli.console import console, printable
from atomstream.cli.exit_codes import ExitCode, require_server
from atomstream.cli.options import data_dir_option
from atomstream.config import home_expanded
from atomstream.counted import counted

if TYPE_CHECKING:
    from atomstream.server.upkeep.pace import Pace

F = TypeVar("F", bound=Callable[..., Any])


def rate_option(command: F) -> F:
    """The option ``--rate``, passed as ``rate`` in MB/s or None."""
    return click.option(
        "--rate",
        type=click.FloatRange(0.01, 1e6),
        metavar="MB/S",
        help="Limit of the read rate in MB per second, to leave the disk to running streams [no limit].",
    )(command)


def make_pace(rate: float | None) -> Pace:
    """The pace of ``--rate``."""
    from atomstream.server.upkeep.pace import Pace

    return Pace(None if rate is None else rate * 1e6)


@click.command()
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@data_dir_option("atomstream-data", "Data folder of the server, which may be running.")
@rate_option
def backup(target: Path, data_dir: Path, rate: float | None) -> int:
    """Copy the data folder of a server to a new folder in DIR, also while the server runs and streams grow.

    The copy is consistent: it can be restored and then has all streams, marks, results and keys of the time of the
    copy. Each backup is complete in itself; files that did not change are linked to those of the backup before, and
    take no space. To remove a backup, remove its folder. An interrupted backup leaves the earlier ones unchanged, and
    is removed by the next one.

    \b
    Example:
      atomstream backup E:/backups --data D:/rheed
    """
    require_server()
    from atomstream.server.upkeep.backup import back_up

    report = back_up(_absolute(data_dir), _absolute(target), pace=make_pace(rate), say=_say)
    seconds = max(report.seconds, 1e-3)
    click.echo(
        f"{report.folder}: {counted(report.streams, 'stream')} with {counted(report.chunks, 'chunk')}; "
        f"{counted(report.files, 'file')} copied "
        f"({report.nbytes / 1e6:.1f} MB at {report.nbytes / 1e6 / seconds:.1f} MB/s), "
        f"{report.linked_files} unchanged ({report.linked_nbytes / 1e6:.1f} MB)."
    )
    return _end(report.problems, "could not be read and is not in the backup")


@click.command()
@click.argument("source", metavar="BACKUP", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--data",
    "data_dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="New data folder; it must be empty or missing.",
)
@click.option("--incomplete", is_flag=True, help="Restore the complete streams of an interrupted backup.")
@rate_option
def restore(source: Path, data_dir: Path, incomplete: bool, rate: float | None) -> int:
    """Restore a backup into a new data folder, for a server to run on.

    BACKUP is the folder of one backup, or a folder of backups, of which the newest is used. Each file is checked
    against its checksum. After an interruption, give the same command again; no server starts before it is finished.

    \b
    Example:
      atomstream restore E:/backups --data D:/rheed-again
      atomstream serve --data D:/rheed-again
    """
    require_server()
    from atomstream.server import reindex
    from atomstream.server.upkeep.restore import choose_backup
    from atomstream.server.upkeep.restore import restore as restore_backup

    target = _absolute(data_dir)
    chosen = choose_backup(_absolute(source), incomplete=incomplete)
    report = restore_backup(chosen, target, pace=make_pace(rate), say=_say)
    listed = asyncio.run(reindex(target))
    click.echo(
        f"{target}: {counted(report.streams, 'stream')} from the backup of {report.made or 'an interrupted run'} "
        f"({counted(report.files, 'file')}, {report.nbytes / 1e6:.1f} MB). The catalogue holds "
        f"{counted(listed.streams, 'stream')}, {counted(listed.samples, 'sample')}, {counted(listed.tags, 'tag')} and "
        f"{counted(listed.projects, 'project')}."
    )
    return _end(report.damaged, "is missing or damaged in the backup, and was left out")


@click.command()
@data_dir_option("atomstream-data", "Data folder of the server, which may be running.")
@rate_option
def check(data_dir: Path, rate: float | None) -> int:
    """Read every file of a data folder and compare it with its checksum. Nothing is changed.

    Prints a line for each damaged file, and how much was read at which rate. The exit code is 1 if a file is damaged.

    \b
    Example:
      atomstream check --data D:/rheed --rate 50
    """
    require_server()
    from atomstream.server.upkeep.check import check as check_files

    report = check_files(_absolute(data_dir), pace=make_pace(rate), say=lambda line: _say(f"damaged: {line}"))
    click.echo(
        f"{counted(report.streams, 'stream')}: {counted(report.shards, 'shard')} and "
        f"{counted(report.records, 'record')}, {counted(report.files, 'file')}, "
        f"{report.nbytes / 1e6:.1f} MB at {report.nbytes / 1e6 / max(report.seconds, 1e-3):.1f} MB/s; "
        f"{len(report.damaged) or 'nothing'} damaged."
    )
    return ExitCode.INCOMPLETE if report.damaged else ExitCode.DONE


@click.command()
@data_dir_option("atomstream-data", "Data folder of the server, which may be running.")
@click.option(
    "--days",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0.0, 1e5),
    help="Remove damaged files that were set aside when they are older than this.",
)
@click.option("--delete", is_flag=True, help="Remove what was found. Without it, nothing is changed.")
def gc(data_dir: Path, days: float, delete: bool) -> int:
    """List the unreferenced files of a data folder; with --delete, remove them.

    These are leftovers of interrupted writes that are a day old, files of deleted streams, and damaged files that were
    set aside --days ago. Without --delete nothing is removed: a file that was set aside may be the last copy of the
    data, and a removal can't be undone.

    \b
    Examples:
      atomstream gc --data D:/rheed
      atomstream gc --data D:/rheed --delete
    """
    require_server()
    from atomstream.server.upkeep.gc import Garbage, collect_garbage

    folder = _absolute(data_dir)

    def show(one: Garbage) -> None:
        _say(f"{one.path.relative_to(folder).as_posix()}  {one.nbytes} bytes, {one.days:.1f} days: {one.why}")

    report = collect_garbage(folder, days=days, delete=delete, say=show)
    nbytes = sum(one.nbytes for one in report.found)
    if delete:
        click.echo(f"Removed {report.removed} of {len(report.found)}, {report.removed_nbytes / 1e6:.1f} MB.")
    else:
        click.echo(
            f"Found {len(report.found)}, {nbytes / 1e6:.1f} MB. Nothing was removed; --delete does that."
        )
    return _end(report.failed, "could not be removed")


def _absolute(folder: Path) -> Path:
    return home_expanded(folder).absolute()


def _say(line: str) -> None:
    click.echo(printable(line))  # the text contains names of streams and files


def _end(problems: Sequence[str], what: str) -> int:
    for problem in problems:
        console.write(printable(f"atomstream: {problem} {what}"))
    return ExitCode.INCOMPLETE if problems else ExitCode.DONE
