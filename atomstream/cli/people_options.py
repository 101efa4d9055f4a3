"""What the commands about people and keys share: the data folder, projects, times, and how they are shown."""

from __future__ import annotations

import getpass
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from atomstream.cli.console import printable
from atomstream.cli.exit_codes import require_server
from atomstream.cli.options import data_dir_option
from atomstream.cli.service_urls import CATALOGUE_HELP, without_secret
from atomstream.config import home_expanded
from atomstream.errors import ConfigError

if TYPE_CHECKING:
    from atomstream.server.documents import Documents
    from atomstream.server.people.log import AnyPeopleLog
    from atomstream.server.people.records import Actor, Entry
    from atomstream.server.people.store import People

F = TypeVar("F", bound=Callable[..., Any])

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([smhdw])")

_CATALOGUE: Final = "atomstream.catalogue"
"""The name of the URL of ``--catalogue`` in a command's ``meta``."""


def data_option(function: F) -> F:
    """The options ``--data`` and ``--catalogue``: where the people and keys are. Passed as ``data_dir``."""
    data = data_dir_option("atomstream-data", "Data folder of the server, which may be running.")
    catalogue = click.option(
        "--catalogue",
        metavar="URL",
        expose_value=False,
        callback=_keep_catalogue,
        help=f"{CATALOGUE_HELP}, in place of --data [else $ATOMSTREAM_SERVER_CATALOGUE].",
    )
    return data(catalogue(function))


def _keep_catalogue(context: click.Context, parameter: click.Parameter, url: str | None) -> None:
    context.meta[_CATALOGUE] = without_secret(context, parameter, url)


project_option: Final = click.option(
    "--project",
    "projects",
    multiple=True,
    metavar="NAME",
    help="Only this project, by name or UUID; may be repeated.  [default: all]",
)


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """The people of a data folder or of a cluster, and the names of the projects by id."""

    documents: Documents
    people: People
    log_to: Callable[[Callable[[Entry], None]], AnyPeopleLog]
    """The log of people, each of whose entries is given to a function; not yet read."""
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
    """The people of the catalogue that the command or the environment names, else those of ``data_dir``.

    Raises:
        ConfigError: it is not a data folder, or its file of people is damaged; or the catalogue can't be used.
    """
    try:
        from atomstream.server.catalogue.project_names import read_projects
        from atomstream.server.documents import FolderDocuments
        from atomstream.server.people.log import PeopleLog
        from atomstream.server.people.store import People
    except ModuleNotFoundError:
        require_server()  # names the package; otherwise its imports would only take time here
        raise

    context = click.get_current_context()
    url = context.meta.get(_CATALOGUE)
    if url is None and context.get_parameter_source("data_dir") is not ParameterSource.COMMANDLINE:
        url = os.environ.get("ATOMSTREAM_SERVER_CATALOGUE", "").strip()
    if url:
        return _open_catalogue(url, context)
    path = home_expanded(data_dir).absolute()
    if not (path / "streams").is_dir():
        raise ConfigError(
            f"{path} is not the data folder of an atomstream server: it has no 'streams'. Name the folder by --data."
        )
    people = People(path)
    if people.damage:
        raise ConfigError(people.damage)
    return OpenFolder(FolderDocuments(path), people, partial(PeopleLog, path), read_projects(path))


def _open_catalogue(url: str, context: click.Context) -> OpenFolder:
    from atomstream.server.catalogue.project_names import read_shared_projects
    from atomstream.server.catalogue_errors import CatalogueUnavailableError
    from atomstream.server.people.shared_log import SharedPeopleLog
    from atomstream.server.people.store import People
    from atomstream.server.postgres.address import PostgresAddress
    from atomstream.server.postgres.documents import TableDocuments
    from atomstream.server.postgres.migrate import prepare
    from atomstream.server.postgres.postgres import Postgres, require_drivers

    require_drivers()
    postgres = Postgres(PostgresAddress.parse(url, os.environ))
    context.call_on_close(postgres.blocking.dispose)
    try:
        prepare(postgres)
        people = People(postgres)
        if people.damage:
            raise ConfigError(people.damage)
        log_to = partial(SharedPeopleLog, postgres)
        return OpenFolder(TableDocuments(postgres), people, log_to, read_shared_projects(postgres))
    except CatalogueUnavailableError as error:
        raise ConfigError(postgres.describe(error)) from None


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
        raise click.BadParameter(f"{text!r} is not a duration, such as 90d, 12h or 30m.", param_hint=option)
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
            f"{text!r} is not a time: give a duration (90d), a date (2027-06-30) or never.", param_hint=option
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
        *(tuple(map(printable, row)) for row in rows),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
