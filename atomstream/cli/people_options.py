"""What the commands about people and keys share: the data folder, projects, times, and how they are shown."""

from __future__ import annotations

import getpass
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from atomstream.cli.exit_codes import require_server
from atomstream.cli.options import data_dir_option
from atomstream.errors import ConfigError

if TYPE_CHECKING:
    from atomstream.server.people.records import Actor
    from atomstream.server.people.store import People

F = TypeVar("F", bound=Callable[..., Any])

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([smhdw])")

data_option: Final = data_dir_option("atomstream-data", "Data folder of the server, which may be running.")

project_option: Final = click.option(
    "--project",
    "projects",
    multiple=True,
    metavar="NAME",
    help="Only this project, by name or UUID; may be repeated.  [default: all]",
)


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """The people of a data folder, and the names of its projects by id."""

    path: Path
    people: People
    projects: Mapping[str, str]

    def resolve(self, given: tuple[str, ...]) -> tuple[str, ...] | None:
        """The ids of these projects; None for none given, which means all."""
        from atomstream.server.catalogue.project_names import resolve_projects

        return resolve_projects(given, self.projects) if given else None

    def shown(self, projects: tuple[str, ...] | None) -> str:
        """The names of projects, for a list."""
        if projects is None:
            return "all projects"
        return ", ".join(self.projects.get(one, one) for one in projects) or "no projects"


def open_folder(data_dir: Path) -> OpenFolder:
    """The people of ``data_dir``.

    Raises:
        ConfigError: it is no data folder, or its file of people is damaged.
    """
    try:
        from atomstream.server.catalogue.project_names import read_projects
        from atomstream.server.people.store import People
    except ModuleNotFoundError:
        require_server()  # names the package; otherwise its imports would only take time here
        raise

    path = data_dir.expanduser().absolute()
    if not (path / "streams").is_dir():
        raise ConfigError(
            f"{path} is not the data folder of an atomstream server: it has no 'streams'. Name the folder by --data."
        )
    people = People(path)
    if people.damage:
        raise ConfigError(people.damage)
    return OpenFolder(path, people, read_projects(path))


def me() -> Actor:
    """Who runs the command, for the audit log."""
    from atomstream.server.people.records import Actor

    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        name = "unknown user"
    return Actor(name, "command line")


def seconds_of(text: str, option: str) -> float:
    """The seconds of a duration such as ``90d``, ``12h``, ``30m`` or ``0s``; raises click.BadParameter."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise click.BadParameter(f"{text!r} is no duration, such as 90d, 12h or 30m.", param_hint=option)
    return float(match[1]) * _UNITS[match[2]]


def end_of(text: str, option: str) -> float:
    """When a validity ends, in Unix s: after a duration, or at a date or time (ISO 8601, UTC); 0 for ``never``."""
    if text.strip().lower() == "never":
        return 0.0
    if _DURATION.fullmatch(text.strip().lower()):
        return time.time() + seconds_of(text, option)
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time: give a duration (90d), a date (2027-06-30) or never.", param_hint=option
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def moment(at: float | str | None) -> str:
    """A time (Unix s, or ISO 8601) for a list, in UTC; ``-`` for None or 0."""
    if not at:
        return "-"
    when = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC)
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns; what can't be printed is escaped."""
    cells = [
        head,
        *(tuple("".join(c if c.isprintable() else "?" for c in one) for one in row) for row in rows),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
