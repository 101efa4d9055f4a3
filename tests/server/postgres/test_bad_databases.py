"""Databases that can't be used, and bad addresses: a sentence at the start, and nothing is written."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from atomstream.cluster.engines import PostgreSQL
from atomstream.errors import ConfigError
from atomstream.server.catalogue.database import Base
from atomstream.server.catalogue_errors import CatalogueBusyError, CatalogueUnavailableError
from atomstream.server.http.certificate import _make_self_signed
from atomstream.server.postgres.address import COMMAND_S, PostgresAddress
from atomstream.server.postgres.clock import check_clock
from atomstream.server.postgres.documents import TableDocuments
from atomstream.server.postgres.migrate import known_versions, migrate, prepare
from atomstream.server.postgres.postgres import LOCK_S, PEOPLE_LOCK, Postgres, opened
from atomstream.server.postgres.schema import SHARED
from tests.databases import execute, make_database
from tests.engines import running
from tests.live_server import Serve


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connected(address: PostgresAddress, stack: ExitStack) -> Postgres:
    postgres = Postgres(address)
    stack.callback(postgres.blocking.dispose)
    return postgres


def tables(address: PostgresAddress) -> list[tuple[object, ...]]:
    """The tables and their rows, as far as they can show a change."""
    return execute(
        address,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
    )


def test_the_tables_are_those_of_the_classes(postgres_server: PostgreSQL, stack: ExitStack) -> None:
    """The migrations make every column that the program reads, with its type; one more is for the order of rows."""
    postgres = connected(make_database(postgres_server), stack)
    assert prepare(postgres)
    assert not prepare(postgres)
    with postgres.transaction() as connection:
        found = inspect(connection)
        for metadata in (Base.metadata, SHARED):
            for table in metadata.sorted_tables:
                columns = {one["name"]: one for one in found.get_columns(table.name)}
                own = {"described"} if table.name == "streams" else set()
                assert set(columns) == {column.name for column in table.columns} | own
                for column in table.columns:
                    made = columns[column.name]
                    assert made["nullable"] == column.nullable
                    compiled = column.type.dialect_impl(connection.dialect)
                    assert compiled._type_affinity is made["type"]._type_affinity, column
        unique = [one["column_names"] for one in found.get_unique_constraints("samples")]
        assert ["name_key"] in unique


def test_an_older_version_is_migrated_by_a_command(postgres_server: PostgreSQL, stack: ExitStack) -> None:
    """A server refuses it and names the command, which keeps the rows; a second run changes nothing."""
    from alembic import command
    from alembic.config import Config

    address = make_database(postgres_server)
    postgres = connected(address, stack)
    first, *_, last = known_versions()
    config = Config()
    config.set_main_option("script_location", "atomstream:server/postgres/migrations")
    config.set_main_option("path_separator", "os")
    with postgres.transaction() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, first)
        connection.execute(text("INSERT INTO tags VALUES ('1', 't', 't', '2026')"))
    before = tables(address)
    with pytest.raises(ConfigError, match="atomstream cluster migrate"):
        prepare(postgres)
    assert tables(address) == before
    assert migrate(postgres) == (first, last)
    assert migrate(postgres) == (last, last)
    assert not prepare(postgres)
    assert execute(address, "SELECT name FROM tags") == [("t",)]


@pytest.mark.parametrize(
    ("statements", "sentence"),
    [
        (["CREATE TABLE orders (id int)"], "tables of another program"),
        (
            ["CREATE TABLE alembic_version (version_num text)", "CREATE TABLE pages (id int)"],
            "tables of another program",
        ),
        (
            [
                "CREATE TABLE streams (data_id text)",
                "CREATE TABLE alembic_version (version_num text)",
                "INSERT INTO alembic_version VALUES ('9999')",
            ],
            "a newer version made them",
        ),
    ],
    ids=["another program", "another program with alembic", "newer"],
)
def test_other_tables_are_left_alone(
    postgres_server: PostgreSQL, stack: ExitStack, statements: list[str], sentence: str
) -> None:
    """Neither a start nor a migration changes a database of something else, or of a newer atomstream."""
    address = make_database(postgres_server)
    for statement in statements:
        execute(address, statement)
    before, postgres = tables(address), connected(address, stack)
    for step in (prepare, migrate):
        with pytest.raises(ConfigError, match=sentence):
            step(postgres)
    assert tables(address) == before


@pytest.mark.parametrize(
    ("options", "change", "sentence"),
    [
        ("ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", "", "UTF8"),
        ("", "ALTER DATABASE {} SET default_transaction_read_only = on", "read only"),
    ],
    ids=["encoding", "read only"],
)
def test_an_empty_database_that_is_unfit(
    postgres_server: PostgreSQL, stack: ExitStack, options: str, change: str, sentence: str
) -> None:
    """A database that can't hold all names, or that can't be written, gets no tables."""
    address = make_database(postgres_server, options)
    if change:
        execute(PostgresAddress.parse(postgres_server.url, {}), change.format(address.database))
    with pytest.raises(ConfigError, match=sentence):
        prepare(connected(address, stack))
    assert tables(address) == []


def test_a_user_who_may_not_make_tables(postgres_server: PostgreSQL, stack: ExitStack) -> None:
    """The sentence names what to grant."""
    address = make_database(postgres_server)
    role = f"r{address.database}"
    execute(address, f"CREATE ROLE {role} LOGIN")
    execute(address, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    limited = PostgresAddress.parse(address.text.replace(f"{address.user}@", f"{role}@"), {})
    with pytest.raises(ConfigError, match="may not make tables"):
        prepare(connected(limited, stack))


def test_clocks_apart(postgres_server: PostgreSQL, stack: ExitStack) -> None:
    """More than 5 s between the clocks is an error in both directions, with the direction."""
    postgres = connected(make_database(postgres_server), stack)
    with postgres.transaction() as connection:
        assert abs(check_clock(connection, "db")) < 5.0
        for ahead, word in ((3600.0, "ahead of"), (-3600.0, "behind")):
            with pytest.raises(ConfigError, match=f"3600 s {word}"):
                check_clock(connection, "db", lambda ahead=ahead: time.time() + ahead)


async def test_a_server_does_not_start_without_its_catalogue(serve: Serve, tmp_path: Path) -> None:
    """Nothing listens at the address: the sentence names it and the command that checks."""
    address = PostgresAddress.parse("postgresql://me:secret-word@127.0.0.1:1/none", {})
    with pytest.raises(ConfigError, match="cluster check") as refused:
        await serve(catalogue=address)
    assert "postgresql://me@127.0.0.1:1/none" in str(refused.value)
    assert "secret-word" not in str(refused.value) + repr(address)


def test_what_was_asked_a_moment_ago_fails_at_once(stack: ExitStack) -> None:
    """After a failure no connection is tried for a second: each may take seconds."""
    postgres = connected(PostgresAddress.parse("postgresql://me@127.0.0.1:1/none", {}), stack)
    now = [0.0]
    postgres.reachability._clock = lambda: now[0]
    tried: list[float] = []

    def fail(at: float) -> None:
        with postgres.reachability.asking():
            tried.append(at)
            raise TimeoutError from asyncio.CancelledError()

    for at in (0.0, 0.9, 1.1):
        now[0] = at
        with pytest.raises(CatalogueUnavailableError):
            fail(at)
    assert tried == [0.0, 1.1]
    assert "for 1 s" in postgres.reachability.problem
    assert postgres.reachability.cause == "it does not answer in time"
    now[0] = 2.2
    with postgres.reachability.asking():
        pass
    assert postgres.reachability.problem == ""


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql://", "can't be read|lacks a host"),
        ("postgresql://host/db", "lacks"),
        ("postgresql://me@host", "lacks"),
        ("mysql://me@host/db", "'mysql' is not known"),
        ("postgresql+psycopg2://me@host/db", "not known"),
        ("postgresql://me@host:99999/db", "99999|can't be read"),
        ("postgresql://me:pass-word-1@host:x/db", "can't be read"),
        ("postgresql://me@host/db?sslmod=disable", "'sslmod'"),
        ("postgresql://me@host/db?sslmode=require", "do not check who answers"),
        ("postgresql://me@host/db?sslrootcert=/no/such/file", "/no/such/file"),
    ],
)
def test_bad_addresses(url: str, sentence: str) -> None:
    """Each has a sentence that names what is wrong, and never a password."""
    with pytest.raises(ConfigError, match=sentence) as refused:
        PostgresAddress.parse(url, {})
    assert "pass-word-1" not in str(refused.value)


def test_where_the_password_comes_from(tmp_path: Path) -> None:
    """The URL, then the environment, then a file, which is read for each connection."""
    url, file = "postgresql://me@127.0.0.1/db", tmp_path / "password"
    file.write_text("first one\n")
    both = {"ATOMSTREAM_CATALOGUE_PASSWORD_FILE": str(file), "ATOMSTREAM_CATALOGUE_PASSWORD": "given"}
    assert PostgresAddress.parse("postgresql://me:p%40ss@127.0.0.1/db", both).secret() == "p@ss"
    assert PostgresAddress.parse(url, both).secret() == "given"
    del both["ATOMSTREAM_CATALOGUE_PASSWORD"]
    address = PostgresAddress.parse(url, both)
    assert address.secret() == "first one"
    file.write_text("second one")
    assert address.secret() == "second one"
    file.unlink()
    with pytest.raises(ConfigError, match="ATOMSTREAM_CATALOGUE_PASSWORD_FILE"):
        PostgresAddress.parse(url, both)


def test_another_computer_is_reached_by_tls_only() -> None:
    """The certificate and the name are checked, unless TLS was switched off by name; loopback needs none."""
    far = PostgresAddress.parse("postgresql://me@db.lab.example/db", {})
    assert far.tls is not None
    assert far.tls.check_hostname
    assert PostgresAddress.parse("postgresql://me@db.lab.example/db?sslmode=disable", {}).tls is None
    authority = PostgresAddress.parse("postgresql://me@db.lab.example/db?sslmode=verify-ca", {})
    assert authority.tls is not None
    assert not authority.tls.check_hostname
    assert PostgresAddress.parse("postgresql://me@127.0.0.1/db", {}).tls is None
    assert PostgresAddress.parse("postgresql://me@/db?host=/var/run/postgresql", {}).tls is None


@pytest.mark.skipif(os.name == "nt", reason="no such user")
def test_a_wrong_database_is_named(postgres_server: PostgreSQL, stack: ExitStack) -> None:
    """Of a database that does not exist the start has the server's own words."""
    address = PostgresAddress.parse(postgres_server.url.rsplit("/", 1)[0] + "/missing", {})
    postgres = connected(address, stack)
    with pytest.raises(CatalogueUnavailableError):
        prepare(postgres)
    assert postgres.reachability.cause == 'database "missing" does not exist'


def test_several_first_starts_make_the_tables_once(postgres_server: PostgreSQL, stack: ExitStack) -> None:
    """Servers that start on an empty database at the same time all go on; one of them made the tables."""
    address = make_database(postgres_server)
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: prepare(connected(address, stack)), range(3)))
    assert sorted(made) == [False, False, True]


@pytest.mark.slow
async def test_a_connection_with_tls(tmp_path: Path) -> None:
    """Both drivers check the certificate and the name, and send no password to a server that fails."""
    with running(PostgreSQL) as engine:
        certificate, key = _make_self_signed(["127.0.0.1"])
        data = engine.folder / "data"
        for name, content in (("server.crt", certificate), ("server.key", key)):
            (data / name).write_bytes(content)
            (data / name).chmod(0o600)
            owner = data.stat()
            os.chown(data / name, owner.st_uid, owner.st_gid)
        plain = PostgresAddress.parse(engine.url, {})
        await asyncio.to_thread(execute, plain, "ALTER SYSTEM SET ssl = on")
        await asyncio.to_thread(execute, plain, "SELECT pg_reload_conf()")
        authority = tmp_path / "ca.crt"
        authority.write_bytes(certificate)
        trusted = PostgresAddress.parse(f"{engine.url}?sslrootcert={authority}", {})
        async with opened(trusted) as postgres:
            encrypted = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            while not await _is_encrypted(postgres):
                pass  # until the server has read its settings again
            async with postgres.engine.connect() as connection:
                assert await connection.scalar(encrypted) is True
        async with opened(PostgresAddress.parse(f"{engine.url}?sslmode=verify-full", {})) as postgres:
            with pytest.raises(CatalogueUnavailableError):
                await asyncio.to_thread(prepare, postgres)
            assert "certificate verify failed" in postgres.reachability.cause
        other_name = trusted.text.replace("127.0.0.1", "localhost") + f"?sslrootcert={authority}"
        async with opened(PostgresAddress.parse(other_name, {})) as postgres:
            with pytest.raises(CatalogueUnavailableError):
                await asyncio.to_thread(prepare, postgres)
            assert "localhost" in postgres.reachability.cause


def test_a_lock_that_is_held_for_long_is_not_a_lost_connection(
    postgres_server: PostgreSQL, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for another writer, or for its rows, ends before the time-out of the drivers: it may pass."""
    assert LOCK_S < COMMAND_S
    monkeypatch.setattr("atomstream.server.postgres.postgres.LOCK_S", 0.1)
    address = make_database(postgres_server)
    here, there = connected(address, stack), connected(address, stack)
    assert prepare(here)
    with here.transaction(PEOPLE_LOCK) as held:
        with (
            pytest.raises(CatalogueBusyError, match="Another server") as refused,
            there.transaction(PEOPLE_LOCK),
        ):
            pass
        held.execute(text("LOCK TABLE documents"))
        with pytest.raises(CatalogueBusyError, match="Another server"):
            TableDocuments(there).write("keys.json", b"{}")
    assert there.describe(refused.value) == str(refused.value)
    assert there.reachability.problem == ""
    TableDocuments(there).write("keys.json", b"{}")


async def _is_encrypted(postgres: Postgres) -> bool:
    try:
        return await asyncio.to_thread(_ask_encrypted, postgres)
    except CatalogueUnavailableError:
        return False


def _ask_encrypted(postgres: Postgres) -> bool:
    with postgres.transaction() as connection:
        found = connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        return bool(found.scalar())
