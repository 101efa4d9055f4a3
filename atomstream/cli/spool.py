"""``atomstream spool``: what waits on this computer's disk for its server: look, deliver, give up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.options import connection_options
from atomstream.config import explicit_endpoint, resolve_spool_dir
from atomstream.errors import AtomstreamError, ConfigError, SpoolLockedError, StreamFinalizedError

if TYPE_CHECKING:
    from atomstream.spool import Spool, SpooledStream, SpoolStatus, StreamStatus
    from atomstream.streaming import RHEEDStreamer

F = TypeVar("F", bound=Callable[..., Any])
LOOK_S: Final = 0.2
SAY_S: Final = 5.0


def _spool_option(command: F) -> F:
    return click.option(
        "--spool-dir",
        type=click.Path(path_type=Path),
        help="The spool's folder [else $ATOMSTREAM_SPOOL_DIR, else this user's].",
    )(command)


@click.group()
def spool() -> None:
    """Look after the chunks that wait on this computer's disk for their server.

    A streamer keeps on disk what its server does not have yet, and the next streamer for the same server
    delivers it by itself: these commands do the same by hand.
    """


@spool.command(name="list")
@_spool_option
def list_streams(spool_dir: Path | None) -> int:
    """Show every stream in the spool and what is left of it.

    \b
    Example:
      atomstream spool list
    """
    folder = resolve_spool_dir(spool_dir)
    if not folder.is_dir():
        click.echo(f"There is no spool at {folder}: nothing waits.")
        return ExitCode.DONE
    click.echo(status_table(_open(folder).status()))
    return ExitCode.DONE


@spool.command()
@click.argument("data_ids", nargs=-1, metavar="[DATA_ID]...")
@_spool_option
@connection_options
@click.option("--quarantined", is_flag=True, help="Try the chunks in quarantine once more, too.")
@click.option("--finalize", is_flag=True, help="Say that these streams are complete, once delivered.")
def resume(
    data_ids: tuple[str, ...],
    spool_dir: Path | None,
    endpoint: str | None,
    api_key: str | None,
    quarantined: bool,
    finalize: bool,
) -> int:
    """Deliver what waits for a server, of the streams named or of all; returns once it is done.

    \b
    Examples:
      atomstream spool resume --endpoint http://lab-pc:8765
      atomstream spool resume --quarantined --finalize 0aa00e56-e706-47cd-be49-6275ee0651a1
    """
    from atomstream.streaming import RHEEDStreamer

    folder = resolve_spool_dir(spool_dir)
    left = _open(folder)
    where = _endpoint_for(left, endpoint)
    chosen = _chosen(left.streams(where), data_ids)
    if quarantined:
        _requeue(left, where, chosen)
    with RHEEDStreamer(api_key, where, None, folder) as streamer:
        _deliver(streamer, where, [stream.data_id for stream in chosen], finalize)
        return _verdict(streamer.spool_status(), {stream.data_id for stream in chosen})


@spool.command()
@click.argument("data_ids", nargs=-1, metavar="[DATA_ID]...")
@_spool_option
@click.option("--all", "everything", is_flag=True, help="All streams in the spool.")
def purge(data_ids: tuple[str, ...], spool_dir: Path | None, everything: bool) -> int:
    """Remove streams from the spool for ever, undelivered chunks included. Asks first.

    \b
    Example:
      atomstream spool purge 0aa00e56-e706-47cd-be49-6275ee0651a1
    """
    if bool(data_ids) == everything:
        raise click.UsageError("Name the streams to purge (see 'atomstream spool list'), or say --all.")
    left = _open(resolve_spool_dir(spool_dir))
    chosen = _chosen(left.streams(), data_ids)
    status = {stream["folder"]: stream for stream in left.status()["streams"]}
    lost = sum(_undelivered(status[str(stream.folder)]) for stream in chosen)
    question = (
        f"Remove {len(chosen)} stream(s) from {left.root} for ever? {lost} chunk(s) were never delivered."
    )
    if not chosen or not click.confirm(question, default=False):
        click.echo("Nothing was removed.")
        return ExitCode.DONE if not chosen else ExitCode.INCOMPLETE
    return _purge(left, chosen)


def status_table(status: SpoolStatus) -> str:
    """The spool for a person: a row a stream, and the room that is left."""
    rows: list[tuple[str, ...]] = [("STREAM", "NAME", "SERVER", "WAITING", "MB", "QUARANTINED", "STATE")]
    rows += [_row(stream) for stream in status["streams"]]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if len(rows) == 1:
        lines = ["Nothing waits."]
    lines.append(
        f"\n{status['dir']}: {status['bytes'] / 1e6:.1f} of at most {status['max_bytes'] / 1e6:.0f} MB, "
        f"{status['free_bytes'] / 1e9:.1f} GB free on the disk"
    )
    return "\n".join(lines)


def _row(stream: StreamStatus) -> tuple[str, ...]:
    return (
        stream["data_id"],
        _printable(stream["name"]),
        stream["endpoint"],
        str(stream["chunks_pending"]),
        f"{stream['bytes'] / 1e6:.1f}",
        str(stream["chunks_quarantined_on_disk"]),
        _state(stream),
    )


def _printable(text: str) -> str:
    # A stream's name may hold anything; a terminal obeys control characters.
    return "".join(c if c.isprintable() else "?" for c in text)[:40]


def _state(stream: StreamStatus) -> str:
    if stream["problem"]:
        return f"can't be read: {_printable(stream['problem'])}"
    state = "ended" if stream["ended"] else "being finalized" if stream["finalizing"] else "open"
    return f"{state}, in use" if stream["locked"] else state


def _undelivered(stream: StreamStatus) -> int:
    return stream["chunks_on_disk"] + stream["chunks_quarantined_on_disk"]


def _open(folder: Path) -> Spool:
    from atomstream.spool import Spool

    return Spool(folder, min_free_bytes=0)


class _Chosen:
    """A stream that was named and can be read."""

    def __init__(self, found: SpooledStream) -> None:
        self.folder = found.folder
        self.data_id = found.manifest.spec.data_id if found.manifest else found.folder.name
        self.endpoint = found.manifest.endpoint if found.manifest else ""


def _chosen(found: Iterable[SpooledStream], data_ids: tuple[str, ...]) -> list[_Chosen]:
    streams = [_Chosen(stream) for stream in found]
    unknown = set(data_ids) - {stream.data_id for stream in streams}
    if unknown:
        raise ConfigError(
            f"The spool has no stream {', '.join(sorted(unknown))}; see 'atomstream spool list'."
        )
    return [stream for stream in streams if not data_ids or stream.data_id in data_ids]


def _endpoint_for(left: Spool, given: str | None) -> str:
    """The server meant: as given, else by the environment, else the only one that the spool knows."""
    named = explicit_endpoint(given)
    if named is not None:
        return named
    known = {stream.manifest.endpoint for stream in left.streams() if stream.manifest}
    if len(known) != 1:
        raise ConfigError(
            "Say which server with --endpoint: the spool holds streams for "
            + (", ".join(sorted(known)) if known else "none")
            + "."
        )
    return known.pop()


def _requeue(left: Spool, endpoint: str, chosen: Iterable[_Chosen]) -> None:
    for stream in chosen:
        try:
            opened = left.open_stream(endpoint, stream.data_id)
        except SpoolLockedError as error:
            console.say(f"atomstream: {error}")
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
    said_at = time.monotonic()
    while waiting := _waiting(streamer.spool_status(), set(data_ids)):
        if time.monotonic() > said_at + SAY_S:
            said_at = time.monotonic()
            console.say(f"{waiting} chunks wait for {endpoint} ...")
        time.sleep(LOOK_S)


def _finalize(streamer: RHEEDStreamer, data_id: str) -> None:
    try:
        streamer.resume(data_id)
    except (StreamFinalizedError, SpoolLockedError) as error:
        console.say(f"atomstream: {error}")
        return
    streamer.finalize(data_id)


def _waiting(status: SpoolStatus, data_ids: set[str]) -> int:
    """Chunks still to be delivered; a stream whose end is not yet acknowledged counts as one."""
    streams = [
        stream for stream in status["streams"] if stream["data_id"] in data_ids and not stream["problem"]
    ]
    return sum(
        max(stream["chunks_pending"], stream["finalizing"] and not stream["ended"]) for stream in streams
    )


def _verdict(status: SpoolStatus, data_ids: set[str]) -> int:
    left = [stream for stream in status["streams"] if stream["data_id"] in data_ids]
    aside = sum(stream["chunks_quarantined_on_disk"] for stream in left)
    unread = [stream for stream in left if stream["problem"]]
    for stream in unread:
        console.say(f"atomstream: {stream['problem']}")
    if aside:
        console.say(f"{aside} chunk(s) are in quarantine, for the server refused them or they are damaged.")
    click.echo("Everything that could be delivered is delivered.")
    return ExitCode.INCOMPLETE if aside or unread else ExitCode.DONE


def _purge(left: Spool, chosen: Iterable[_Chosen]) -> int:
    code = ExitCode.DONE
    for stream in chosen:
        try:
            opened = left.open_stream(stream.endpoint, stream.data_id)
            opened.purge("by hand")
            opened.remove()
        except AtomstreamError as error:
            console.say(f"atomstream: {error}")
            code = ExitCode.INCOMPLETE
        else:
            click.echo(f"Removed {stream.data_id}.")
    return code
