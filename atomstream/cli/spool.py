"""``atomstream spool``: list, deliver or delete chunks that wait on the local disk for their server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from atomstream.cli.console import console, printable
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.options import connection_options
from atomstream.config import explicit_endpoint, resolve_spool_dir
from atomstream.counted import counted
from atomstream.errors import AtomstreamError, ConfigError, SpoolLockedError, StreamFinalizedError
from atomstream.login import NO_SERVER, saved_login

if TYPE_CHECKING:
    from atomstream.spool import Spool, SpooledStream, SpoolStatus, StreamStatus
    from atomstream.streaming import RHEEDStreamer

F = TypeVar("F", bound=Callable[..., Any])
POLL_S: Final = 0.2
REPORT_INTERVAL_S: Final = 5.0


def _spool_option(command: F) -> F:
    return click.option(
        "--spool-dir",
        type=click.Path(path_type=Path),
        help="Folder of the spool [else $ATOMSTREAM_SPOOL_DIR, else the user's folder].",
    )(command)


@click.group()
def spool() -> None:
    """Manage the chunks that wait on the local disk for their server.

    A streamer keeps chunks on disk until the server has them. The next streamer for the same server delivers them
    automatically; these commands do it by hand.
    """


@spool.command(name="list")
@_spool_option
def list_streams(spool_dir: Path | None) -> int:
    """Show every stream in the spool, with its waiting chunks.

    \b
    Example:
      atomstream spool list
    """
    folder = resolve_spool_dir(spool_dir)
    if not folder.is_dir():
        click.echo(f"There is no spool at {folder}: no chunk is waiting.")
        return ExitCode.DONE
    click.echo(status_table(_open(folder).status()))
    return ExitCode.DONE


@spool.command()
@click.argument("data_ids", nargs=-1, metavar="[DATA_ID]...")
@_spool_option
@connection_options
@click.option("--quarantined", is_flag=True, help="Retry the chunks in quarantine too.")
@click.option("--finalize", is_flag=True, help="Mark these streams as complete after delivery.")
def resume(
    data_ids: tuple[str, ...],
    spool_dir: Path | None,
    endpoint: str | None,
    api_key: str | None,
    quarantined: bool,
    finalize: bool,
) -> int:
    """Deliver the waiting chunks of the named streams, or of all streams of a server.

    \b
    Examples:
      atomstream spool resume --endpoint http://lab-pc:8765
      atomstream spool resume --quarantined --finalize 0aa00e56-e706-47cd-be49-6275ee0651a1
    """
    from atomstream.streaming import RHEEDStreamer

    folder = resolve_spool_dir(spool_dir)
    spooled = _open(folder)
    server = _endpoint_for(spooled, endpoint)
    spooled.adopt(NO_SERVER.endpoint, server)  # recordings that were made before there was a server
    selected = _select(spooled.streams(server), data_ids)
    if quarantined:
        _requeue(spooled, server, selected)
    with RHEEDStreamer(api_key, server, None, folder) as streamer:
        _deliver(streamer, server, [stream.data_id for stream in selected], finalize)
        return _report_rest(streamer.spool_status(), {stream.data_id for stream in selected})


@spool.command()
@click.argument("data_ids", nargs=-1, metavar="[DATA_ID]...")
@_spool_option
@click.option("--all", "everything", is_flag=True, help="All streams in the spool.")
def purge(data_ids: tuple[str, ...], spool_dir: Path | None, everything: bool) -> int:
    """Delete streams from the spool permanently, with undelivered chunks. Asks for confirmation.

    \b
    Example:
      atomstream spool purge 0aa00e56-e706-47cd-be49-6275ee0651a1
    """
    if bool(data_ids) == everything:
        raise click.UsageError("Name the streams to purge (see 'atomstream spool list'), or use --all.")
    spooled = _open(resolve_spool_dir(spool_dir))
    selected = _select(spooled.streams(), data_ids)
    status = {stream["folder"]: stream for stream in spooled.status()["streams"]}
    lost = sum(_undelivered(status[str(stream.folder)]) for stream in selected)
    question = (
        f"Remove {counted(len(selected), 'stream')} from {spooled.root} permanently? "
        f"{counted(lost, 'chunk was', 'chunks were')} never delivered."
    )
    if not selected or not click.confirm(question, default=False):
        click.echo("Nothing was removed.")
        return ExitCode.DONE if not selected else ExitCode.INCOMPLETE
    return _purge(spooled, selected)


def status_table(status: SpoolStatus) -> str:
    """Format the spool as a table: one row per stream, and the free space."""
    rows: list[tuple[str, ...]] = [("STREAM", "NAME", "SERVER", "WAITING", "MB", "QUARANTINED", "STATE")]
    rows += [_row(stream) for stream in status["streams"]]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if len(rows) == 1:
        lines = ["No chunk is waiting."]
    lines.append(
        f"\n{status['dir']}: {status['bytes'] / 1e6:.1f} of at most {status['max_bytes'] / 1e6:.0f} MB, "
        f"{status['free_bytes'] / 1e9:.1f} GB free on the disk"
    )
    return "\n".join(lines)


def _row(stream: StreamStatus) -> tuple[str, ...]:
    return (
        stream["data_id"],
        printable(stream["name"])[:40],
        "none yet" if stream["endpoint"] == NO_SERVER.endpoint else stream["endpoint"],
        str(stream["chunks_pending"]),
        f"{stream['bytes'] / 1e6:.1f}",
        str(stream["chunks_quarantined_on_disk"]),
        _state(stream),
    )


def _state(stream: StreamStatus) -> str:
    if stream["problem"]:
        return f"can't be read: {printable(stream['problem'])[:40]}"
    state = "ended" if stream["ended"] else "being finalized" if stream["finalizing"] else "open"
    return f"{state}, in use" if stream["locked"] else state


def _undelivered(stream: StreamStatus) -> int:
    return stream["chunks_on_disk"] + stream["chunks_quarantined_on_disk"]


def _open(folder: Path) -> Spool:
    from atomstream.spool import Spool

    return Spool(folder, min_free_bytes=0)


class _SelectedStream:
    """A stream selected on the command line."""

    def __init__(self, found: SpooledStream) -> None:
        self.folder = found.folder
        self.data_id = found.manifest.spec.data_id if found.manifest else found.folder.name
        self.endpoint = found.manifest.endpoint if found.manifest else ""


def _select(found: Iterable[SpooledStream], data_ids: tuple[str, ...]) -> list[_SelectedStream]:
    streams = [_SelectedStream(stream) for stream in found]
    unknown = set(data_ids) - {stream.data_id for stream in streams}
    if unknown:
        raise ConfigError(
            f"The spool has no stream {', '.join(sorted(unknown))}; see 'atomstream spool list'."
        )
    return [stream for stream in streams if not data_ids or stream.data_id in data_ids]


def _endpoint_for(spooled: Spool, given: str | None) -> str:
    """Return the server: as given, else from the environment, else the only one in the spool."""
    named = explicit_endpoint(given)
    if named is not None:
        return named
    known = {stream.manifest.endpoint for stream in spooled.streams() if stream.manifest}
    if NO_SERVER.endpoint in known:
        known.remove(NO_SERVER.endpoint)
        known |= {login.endpoint for login in [saved_login()] if login is not None}
    if len(known) != 1:
        raise ConfigError(
            "Give the server with --endpoint: the spool contains streams for "
            + (", ".join(sorted(known)) if known else "none")
            + "."
        )
    return known.pop()


def _requeue(spooled: Spool, endpoint: str, selected: Iterable[_SelectedStream]) -> None:
    for stream in selected:
        try:
            opened = spooled.open_stream(endpoint, stream.data_id)
        except SpoolLockedError as error:
            console.write(f"atomstream: {error}")
            continue
        try:
            for index in opened.quarantined():
                opened.requeue(index)
        finally:
            opened.close()


def _deliver(streamer: RHEEDStreamer, endpoint: str, data_ids: list[str], finalize: bool) -> None:
    if finalize:
        for data_id in data_ids:
            _finalize(streamer, data_id)
    last_report = time.monotonic()
    while waiting := _waiting(streamer.spool_status(), set(data_ids)):
        if time.monotonic() > last_report + REPORT_INTERVAL_S:
            last_report = time.monotonic()
            console.write(f"{counted(waiting, 'chunk waits', 'chunks wait')} for {endpoint} ...")
        time.sleep(POLL_S)


def _finalize(streamer: RHEEDStreamer, data_id: str) -> None:
    try:
        streamer.resume(data_id)
    except (StreamFinalizedError, SpoolLockedError) as error:
        console.write(f"atomstream: {error}")
        return
    streamer.finalize(data_id)


def _waiting(status: SpoolStatus, data_ids: set[str]) -> int:
    """Count the chunks not yet delivered; a stream whose end is not acknowledged counts as one."""
    streams = [
        stream for stream in status["streams"] if stream["data_id"] in data_ids and not stream["problem"]
    ]
    return sum(
        max(stream["chunks_pending"], stream["finalizing"] and not stream["ended"]) for stream in streams
    )


def _report_rest(status: SpoolStatus, data_ids: set[str]) -> int:
    spooled = [stream for stream in status["streams"] if stream["data_id"] in data_ids]
    quarantined_chunks = sum(stream["chunks_quarantined_on_disk"] for stream in spooled)
    unreadable = [stream for stream in spooled if stream["problem"]]
    for stream in unreadable:
        console.write(f"atomstream: {stream['problem']}")
    if quarantined_chunks:
        console.write(
            f"{counted(quarantined_chunks, 'chunk is', 'chunks are')} in quarantine: refused by the server, or damaged."
        )
    click.echo("All chunks that could be delivered are delivered.")
    return ExitCode.INCOMPLETE if quarantined_chunks or unreadable else ExitCode.DONE


def _purge(spooled: Spool, selected: Iterable[_SelectedStream]) -> int:
    code = ExitCode.DONE
    for stream in selected:
        try:
            opened = spooled.open_stream(stream.endpoint, stream.data_id)
            opened.purge("by hand")
            opened.remove()
        except AtomstreamError as error:
            console.write(f"atomstream: {error}")
            code = ExitCode.INCOMPLETE
        else:
            click.echo(f"Removed {stream.data_id}.")
    return code
