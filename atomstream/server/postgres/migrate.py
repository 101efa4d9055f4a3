"""The version of the tables of a PostgreSQL database: checked at a start, made in an empty one, and migrated."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from atomstream.errors import ConfigError
from atomstream.server.postgres.clock import check_clock
from atomstream.server.postgres.postgres import SCHEMA_LOCK, Postgres

_SCRIPTS: Final = Path(__file__).with_name("migrations")
_VERSION_TABLE: Final = "alembic_version"

EMPTY: Final = ""
"""The version of a database without tables."""


def known_versions() -> list[str]:
    """All versions that this atomstream can migrate from, the oldest first; the last one is its own."""
    from alembic.script import ScriptDirectory

    found = [script.revision for script in ScriptDirectory(str(_SCRIPTS)).walk_revisions()]
    return found[::-1]


def version_of(connection: Connection, name: str) -> str:
    """The version of a database, :data:`EMPTY` for an empty one; ``name`` is for messages.

    Raises:
        ConfigError: it has tables of another program.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return EMPTY
    if _VERSION_TABLE in tables and "streams" in tables:
        found = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()
        if found:
            return str(found)
    listed = ", ".join(sorted(tables)[:5])
    raise ConfigError(
        f"The database {name} has tables of another program ({listed}). Give atomstream a separate database; nothing "
        "was changed."
    )


def check_version(version: str, name: str) -> None:
    """Raises ConfigError if a database of this version can't be used by this atomstream."""
    known = known_versions()
    if version == known[-1]:
        return
    if version in known:
        raise ConfigError(
            f"The tables of the database {name} have the version {version}, and this atomstream needs {known[-1]}. "
            "Make a backup (pg_dump), then run: atomstream cluster migrate. Servers of the version before run on "
            "meanwhile. Nothing was changed."
        )
    raise ConfigError(
        f"The tables of the database {name} have the version {version[:40]}, which this atomstream does not "
        f"support: a newer version made them (this one supports {known[0]} to {known[-1]}). Update "
        "atomstream; nothing was changed."
    )


def prepare(postgres: Postgres) -> bool:
    """Make the tables in an empty database; check the version of another one. True if it was empty. Blocks.

    Several servers may do this at the same time.

    Raises:
        ConfigError: the database can't be used, or the clocks differ. CatalogueUnavailableError: it can't be reached.
    """
    with postgres.transaction(SCHEMA_LOCK) as connection:
        if examine(connection, postgres.address.text) == EMPTY:
            _upgrade(connection)
            return True
        return False


def examine(connection: Connection, name: str) -> str:
    """The version of a database that this server can use, :data:`EMPTY` for one that it can make its tables in.

    Only reads.

    Raises:
        ConfigError: the clocks differ, or the database can't be used.
    """
    check_clock(connection, name)
    version = version_of(connection, name)
    if connection.execute(text("SHOW transaction_read_only")).scalar() == "on":
        raise ConfigError(
            f"The database {name} is read only: a standby, or closed for changes. Name the primary server; behind a "
            "pool or a failover use the address that always leads to it."
        )
    if version != EMPTY:
        check_version(version, name)
        return version
    encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        raise ConfigError(
            f"The database {name} has the encoding {encoding}; names need UTF8. Make another one: createdb "
            "--encoding UTF8 --template template0 NAME. Nothing was changed."
        )
    may = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
    if not connection.execute(text(may)).scalar():
        raise ConfigError(
            f"The database {name} is empty, and its user may not make tables. Let the user own it: ALTER DATABASE NAME "
            "OWNER TO USER. Nothing was changed."
        )
    return version


def migrate(postgres: Postgres) -> tuple[str, str]:
    """Bring the tables to this atomstream's version; returns the version before and now. Blocks.

    All or nothing: PostgreSQL changes tables within a transaction.

    Raises:
        ConfigError: the database is not one of atomstream, or of a newer one.
    """
    with postgres.transaction(SCHEMA_LOCK) as connection:
        before, known = version_of(connection, postgres.address.text), known_versions()
        if before not in (EMPTY, *known):
            check_version(before, postgres.address.text)
        _upgrade(connection)
        return before, known[-1]


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
