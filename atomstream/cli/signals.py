"""``atomstream signals``: streams the signals of a CSV log, also while a program appends to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.options import connection_options
from atomstream.errors import ConfigError, DrainTimeoutError
from atomstream.login import resolve_login

if TYPE_CHECKING:
    from atomstream.config import WhenUnreachable
    from atomstream.sources.csv_log import CsvLog, Rows
    from atomstream.streaming import TimeseriesStreamer

POLL_S: Final = 0.5
"""Interval, in s, at which a growing log is read."""
CLOSE_S: Final = 2.0
MAX_ROWS: Final = 5_000
"""Rows in one chunk."""


@click.command()
@click.option(
    "--csv",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The log, with a header.",
)
@click.option("--follow", is_flag=True, help="Go on while lines are added, until Ctrl-C or --idle-end.")
@click.option(
    "--idle-end",
    type=click.FloatRange(min=0.0),
    metavar="S",
    help="End --follow after S s without lines.",
)
@click.option("--name", help="Name of the stream [default: name of the file].")
@click.option(
    "--sample",
    help="Physical sample: a name (created if new) or a UUID. The pages of its frame streams show the signals.",
)
@click.option("--project", "project_id", metavar="UUID", help="Project of the sample.")
@click.option("--tag", "tags", multiple=True, help="Tag: a name (created if new) or a UUID; may be repeated.")
@click.option(
    "--channel", "channels", multiple=True, metavar="NAME", help="Stream this column only; may be repeated."
)
@click.option(
    "--unit", "units", multiple=True, metavar="NAME=UNIT", help="Unit of a channel [default: of the header]."
)
@click.option(
    "--mark",
    "marks",
    multiple=True,
    metavar="RULE",
    help="Set marks: 'shutter>0.5 -> mark \"open\"'.",
)
@click.option("--time-column", metavar="NAME", help="Column of the times [default: detected by its name].")
@click.option(
    "--time-format", metavar="FORMAT", help="Format of the times, as for strptime [default: detected]."
)
@click.option("--utc", is_flag=True, help="Times without a zone are UTC [default: this computer's zone].")
@click.option(
    "--start",
    metavar="TIME",
    help="Date and time from which times in seconds count, such as 2026-11-30T09:00:00.",
)
@click.option("--delimiter", metavar="CHAR", help="Separator of the columns [default: detected].")
@connection_options
def signals(endpoint: str | None, api_key: str | None, path: Path, **options: Any) -> int:
    """Stream signals of instruments (temperature, pressure, shutters) from a CSV log.

    On an atomstream server they lie beside the frames of the same sample (--sample). The layout of the log is detected
    from its header and its first lines: separator, decimal comma, units as in "T (degC)", the column and the form of
    the times. Words such as open and closed are 1 and 0.

    \b
    Examples:
      atomstream signals --csv chamber.csv --follow --sample "GaN-2025-001"
      atomstream signals --csv chamber.csv --sample "GaN-2025-001" --mark 'Ga>0.5 -> mark "Ga open"'
      atomstream signals --csv log.txt --time-column Zeit --utc --unit "T sub=degC"
    """
    from atomstream.sources.csv_log import CsvLog
    from atomstream.sources.csv_times import CsvOptions
    from atomstream.streaming import TimeseriesStreamer

    zone = UTC if options["utc"] else None
    log = CsvLog(
        path,
        CsvOptions(
            time_column=options["time_column"],
            time_format=options["time_format"],
            zone=zone,
            start=None if options["start"] is None else _start(options["start"], options["utc"]),
            delimiter=_delimiter(options["delimiter"]),
            channels=options["channels"],
            units=dict(map(_unit, options["units"])),
        ),
    )
    first = log.read(complete=not options["follow"])  # before anything is created on the server
    if not first.times and not options["follow"]:
        raise ConfigError(f"{path} has no rows. With --follow, lines that are added later are streamed.")
    login = resolve_login(api_key, endpoint)
    # A log that is followed is streamed from now on, also if the server is unreachable; a file can be streamed later.
    when: WhenUnreachable = "record" if options["follow"] else "raise"
    streamer = TimeseriesStreamer(login.api_key, login.endpoint, when_unreachable=when)
    try:
        data_id = streamer.initialize(
            options["name"] or path.resolve().stem,
            physical_sample=options["sample"],
            project_id=options["project_id"],
            tags=list(options["tags"]) or None,
            marks=options["marks"] or None,
        )
        console.write(f"signals {data_id} at {login.endpoint}")
        return _Run(streamer, data_id, log, options["follow"], options["idle_end"]).run(first)
    finally:
        streamer.close(CLOSE_S)


class _Run:
    """Sends the rows of one log to one stream."""

    def __init__(
        self, streamer: TimeseriesStreamer, data_id: str, log: CsvLog, follow: bool, idle_end_s: float | None
    ) -> None:
        self._streamer = streamer
        self._data_id = data_id
        self._log = log
        self._follow = follow
        self._idle_end_s = idle_end_s
        self._rows = 0
        self._noted = 0
        self._never = threading.Event()

    def run(self, rows: Rows) -> int:
        interrupted = False
        last = time.monotonic()
        try:
            while True:
                self._send(rows)
                if rows.times:
                    last = time.monotonic()
                idle = time.monotonic() - last
                if not self._follow or (self._idle_end_s is not None and idle >= self._idle_end_s):
                    break
                self._never.wait(POLL_S)
                rows = self._log.read()
            if self._follow:
                self._send(self._log.read(complete=True))
        except KeyboardInterrupt:
            interrupted = True
        return self._finish(interrupted)

    def _send(self, rows: Rows) -> None:
        for first in range(0, len(rows.times), MAX_ROWS):
            part = slice(first, first + MAX_ROWS)
            channels: dict[str, dict[str, Any]] = {
                name: {
                    "timestamps": rows.times[part],
                    "values": values[part],
                    "units": self._log.channels[name],
                }
                for name, values in rows.values.items()
            }
            for one in channels.values():
                if one["units"] is None:
                    del one["units"]
            self._streamer.push_multi(self._data_id, None, channels)
        self._rows += len(rows.times)
        for note in self._log.notes[self._noted :]:
            console.write(f"{self._log.path}: {note}")
        self._noted = len(self._log.notes)

    def _finish(self, interrupted: bool) -> int:
        report: Mapping[str, Any]
        try:
            report = self._streamer.finalize(self._data_id)
        except DrainTimeoutError as error:
            report = error.report
        named = ", ".join(f"{name} ({unit})" if unit else name for name, unit in self._log.channels.items())
        click.echo(f"Signals   {self._data_id}")
        click.echo(f"Channels  {named or 'none'}")
        click.echo(f"Rows      {self._rows} read")
        click.echo(f"Chunks    {report['chunks_uploaded']} of {report['chunks_spooled']} stored")
        if report["chunks_not_uploaded"]:
            click.echo("Not complete: the spool keeps the rest; `atomstream spool resume` delivers it.")
            return ExitCode.INCOMPLETE
        click.echo("Complete: every row is stored.")
        return ExitCode.INTERRUPTED if interrupted else ExitCode.DONE


def _start(text: str, utc: bool) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--start {text!r} is not a time; write it as 2026-11-30T09:00:00.") from None
    if found.tzinfo is None and utc:
        found = found.replace(tzinfo=UTC)
    return found.astimezone(UTC).timestamp()


def _delimiter(text: str | None) -> str | None:
    if text in ("\\t", "tab"):
        return "\t"
    if text is not None and len(text) != 1:
        raise ConfigError(f"--delimiter {text!r} must be one character, or tab.")
    return text


def _unit(text: str) -> tuple[str, str]:
    name, equals, unit = text.rpartition("=")
    if not (equals and name.strip() and unit.strip()):
        raise ConfigError(f"--unit {text!r} must be NAME=UNIT, such as T=degC.")
    return name.strip(), unit.strip()
