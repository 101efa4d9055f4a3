"""``atomstream audit``: who did what on a server."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import click

from atomstream.cli.console import printable
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.people_options import data_option, open_folder


@click.command()
@click.option("--last", default=50, show_default=True, type=click.IntRange(1), help="Number of entries.")
@click.option("--by", metavar="NAME", help="Only what this person, key owner or user of the computer did.")
@click.option("--stream", metavar="UUID", help="Only what was done to this stream.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@data_option
def audit(last: int, by: str | None, stream: str | None, as_json: bool, data_dir: Path) -> int:
    """Show who did what, the newest last: sign-ins, changes of people and keys, streams that were changed or deleted.

    \b
    Example:
      atomstream audit --last 20 --by anna
    """
    folder = open_folder(data_dir)
    import msgspec

    from atomstream.protocol import normalized_name
    from atomstream.server.people.records import Entry

    found: deque[Entry] = deque(maxlen=last)

    def receive(entry: Entry) -> None:
        if by is not None and normalized_name(entry.by) != normalized_name(by):
            return
        if stream is None or entry.stream == stream.lower():
            found.append(entry)

    folder.log_to(receive).refresh()
    for entry in found:
        if as_json:
            names = ("at", "by", "via", "address", "done", "stream")
            click.echo(msgspec.json.encode({name: getattr(entry, name) for name in names}).decode())
            continue
        where = f" from {entry.address}" if entry.address else ""
        what = f"stream {entry.stream} {entry.done}" if entry.stream else entry.done
        for project_id, name in folder.projects.items():
            what = what.replace(project_id, name)
        text = f"{entry.at[:19].replace('T', ' ')}  {entry.by} ({entry.via}{where}): {what}"
        click.echo(printable(text))
    return ExitCode.DONE
