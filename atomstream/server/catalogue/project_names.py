"""The names of the projects of a data folder, also while a server runs on it, and the projects that a command names."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from atomstream.errors import ConfigError
from atomstream.protocol import normalized_name
from atomstream.server.catalogue.database import CATALOGUE_FILE, Project
from atomstream.server.catalogue.names_log import NamesLog, ProjectCreated

if TYPE_CHECKING:
    from atomstream.server.postgres.postgres import Postgres

LISTED = 20


def read_projects(data_dir: Path) -> dict[str, str]:
    """The names of all projects by id: of the names log, and those that only the catalogue has. Blocks."""
    found = {line.id: line.name for line in NamesLog(data_dir).lines() if isinstance(line, ProjectCreated)}
    path = data_dir / CATALOGUE_FILE
    if path.is_file():
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                found |= dict(connection.execute("SELECT id, name FROM projects").fetchall())
        except sqlite3.Error:  # the next start of the server builds it again
            pass
    return found


def read_shared_projects(postgres: Postgres) -> dict[str, str]:
    """The names of all projects of a catalogue that servers share, by id. Blocks; raises CatalogueUnavailableError."""
    with postgres.transaction() as connection:
        rows = connection.execute(select(Project.id, Project.name))
        return {row.id: row.name for row in rows}


def resolve_projects(given: Sequence[str], known: Mapping[str, str]) -> tuple[str, ...]:
    """The ids of the projects that ``given`` names, by name or by id; ``known`` are all names by id.

    Raises:
        ConfigError: there is no such project.
    """
    by_name = {normalized_name(name): project_id for project_id, name in known.items()}
    ids = []
    for one in given:
        project_id = one.lower() if one.lower() in known else by_name.get(normalized_name(one))
        if project_id is None:
            names = sorted(known.values())
            listed = ", ".join(map(repr, names[:LISTED])) + (", ..." if len(names) > LISTED else "")
            there_are = (
                f"There are {listed}." if names else "There are none: atomstream project create makes one."
            )
            raise ConfigError(f"There is no project {one[:64]!r}. {there_are} Nothing was changed.")
        ids.append(project_id)
    return tuple(dict.fromkeys(ids))
