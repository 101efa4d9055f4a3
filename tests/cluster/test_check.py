"""``atomstream cluster check`` and its like: what is wrong with the services, in a sentence each, before any start."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from atomstream.cluster.check import check_cluster
from atomstream.cluster.engines import BUCKET, Nats, PostgreSQL, SeaweedFS
from atomstream.errors import ConfigError
from atomstream.server.cluster_id import adopt, id_in_catalogue, id_in_store, join
from atomstream.server.documents import FolderDocuments
from atomstream.server.ports.bus import Bus
from atomstream.server.ports.bus_address import BusAddress
from atomstream.server.ports.local_store import LocalStore
from tests.cli.commands import atomstream_here
from tests.databases import execute, make_database
from tests.live_server import Serve


def test_three_good_services(
    postgres_server: PostgreSQL, s3_server: SeaweedFS, nats_server: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each with what was found; nothing is made in an empty database, nor left in the store."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    address = make_database(postgres_server)
    store = f"s3://{BUCKET}/check?endpoint={s3_server.url}"
    done = atomstream_here(
        "cluster", "check", "--catalogue", address.text, "--store", store, "--bus", nats_server.url
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "catalogue"],
        ["ok", "store"],
        ["ok", "bus"],
        ["ok", "one"],
    ]
    assert "empty: the first start makes its tables" in lines[0]
    assert "JetStream" in lines[2]
    assert execute(address, "SELECT 1 FROM information_schema.tables WHERE table_schema = 'public'") == []
    assert atomstream_here("cluster", "migrate", "--catalogue", address.text).stdout.startswith(
        "The tables were made"
    )
    done = atomstream_here("cluster", "migrate", "--catalogue", address.text)
    assert "already" in done.stdout


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    """Nothing listens: each service fails by itself, and the code is that of wrong usage."""
    done = atomstream_here(
        *("cluster", "check", "--catalogue", "postgresql://me@127.0.0.1:1/db"),
        *("--store", str(tmp_path / "store"), "--bus", "nats://127.0.0.1:1"),
    )
    assert done.returncode == 2
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["FAILS", "ok", "FAILS"]
    assert "postgresql://me@127.0.0.1:1/db can't be reached" in done.stdout
    assert "nats://127.0.0.1:1 can't be reached" in done.stdout


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("--catalogue", "postgresql://me:hush-hush-1@127.0.0.1/db"),
        ("--store", "s3://bucket?endpoint=http://127.0.0.1&secret_access_key=hush-hush-1"),
        ("--bus", "nats://me:hush-hush-1@127.0.0.1"),
        ("--bus", "nats://hush-hush-1@127.0.0.1"),
    ],
)
def test_a_secret_on_the_command_line_is_refused(option: str, url: str) -> None:
    """The message names the variable and the file by which it can be given, and does not contain it."""
    done = atomstream_here("cluster", "check", option, url)
    assert done.returncode == 2
    assert "every user of this computer can read a command line" in " ".join(done.stderr.split())
    assert f"$ATOMSTREAM_SERVER_{option[2:].upper()}" in done.stderr
    assert "hush" not in done.stdout + done.stderr


def test_a_server_refuses_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``serve`` starts nothing; the same URL from the environment is used."""
    url = "postgresql://me:hush-hush-1@127.0.0.1:1/db"
    done = atomstream_here("serve", "--data", str(tmp_path / "data"), "--catalogue", url)
    assert done.returncode == 2
    assert "password" in done.stderr
    assert not (tmp_path / "data").exists()
    monkeypatch.setenv("ATOMSTREAM_SERVER_CATALOGUE", url)
    done = atomstream_here("cluster", "check")
    assert "postgresql://me@127.0.0.1:1/db can't be reached" in done.stdout
    assert "hush" not in done.stdout + done.stderr


def test_a_start_is_checked_with_its_services(
    postgres_server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``serve --check`` asks the services of its settings, too, and makes nothing."""
    address = make_database(postgres_server)
    monkeypatch.setenv("ATOMSTREAM_SERVER_CATALOGUE", address.text)
    here = ("--data", str(tmp_path / "data"), "--port", "0")
    done = atomstream_here("serve", "--check", *here, "--store", str(tmp_path / "store"))
    assert done.returncode == 0, done.stdout
    names = [line[7:19].strip() for line in done.stdout.splitlines()]
    assert names[-3:] == ["catalogue", "store", "one cluster"]
    assert not (tmp_path / "data").exists()
    store = str(tmp_path / "store")
    done = atomstream_here("serve", "--check", *here, "--store", store, "--bus", "nats://127.0.0.1:1")
    assert done.returncode == 2
    assert [line[7:19].strip() for line in done.stdout.splitlines() if line.startswith("FAILS")] == ["bus"]


def test_people_of_a_catalogue(postgres_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands for people and keys work on a shared catalogue, by option or by the servers' variable."""
    address = make_database(postgres_server)
    done = atomstream_here("users", "add", "anna", "--role", "admin", "--catalogue", address.text)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("ATOMSTREAM_SERVER_CATALOGUE", address.text)
    done = atomstream_here("keys", "create", "--user", "anna", "--scope", "read")
    assert done.stdout.startswith("atst_")
    assert "anna" in atomstream_here("keys", "list").stdout
    shown = atomstream_here("audit").stdout
    assert "added anna" in shown
    assert "made key" in shown


def test_two_clusters_on_one_store(tmp_path: Path) -> None:
    """The first cluster to join owns the store; another one is refused, and changes nothing there or in itself."""
    store = LocalStore(tmp_path / "store")
    ours, others = FolderDocuments(tmp_path / "ours"), FolderDocuments(tmp_path / "others")
    assert id_in_store(store) is None
    cluster = join(ours, store)
    assert join(ours, store) == cluster == id_in_store(store)
    for content in (None, b'{"cluster":"another"}'):
        if content is not None:
            others.write("cluster.json", content)
        with pytest.raises(ConfigError, match=cluster):
            join(others, store)
        assert others.read("cluster.json") == content
        assert id_in_store(store) == cluster
    with pytest.raises(ConfigError, match="another"):
        adopt(others, store)
    new = FolderDocuments(tmp_path / "new")
    with pytest.raises(ConfigError, match="belongs to no cluster"):
        adopt(new, LocalStore(tmp_path / "empty"))
    assert adopt(new, store) == cluster == id_in_catalogue(new) == join(new, store)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("amqp://host", "'amqp' is not a message bus"),
        ("nats://", "host is missing"),
        ("nats://host?tls=yes", "'tls' is not an option"),
        ("nats://host:x", "can't be read"),
        ("nats://host?ca=/no/such/file", "/no/such/file"),
        ("tls://host?insecure=yes", "insecure"),
        ("nats://host?name=a.b", "name='a.b'"),
        ("nats://host?replicas=2", "replicas='2'"),
    ],
)
def test_bad_addresses_of_the_bus(url: str, sentence: str) -> None:
    """Each invalid address of the bus gives a sentence that names what is wrong."""
    with pytest.raises(ConfigError, match=sentence):
        BusAddress.parse(url, {})


def test_how_the_bus_is_reached(tmp_path: Path) -> None:
    """Several servers are one address; secrets come from the URL or the environment; far ones need TLS."""
    near = BusAddress.parse("nats://127.0.0.1:4223,[::1]", {"ATOMSTREAM_BUS_PASSWORD": "a-token-1"})
    assert near.text == "nats://127.0.0.1:4223,nats://[::1]:4222"
    assert near.arguments() == {"token": "a-token-1"}
    user = BusAddress.parse("nats://me:secret-1@127.0.0.1", {})
    assert user.arguments() == {"user": "me", "password": "secret-1"}
    assert "secret-1" not in repr(user)
    far = BusAddress.parse("nats://a.lab.example,b.lab.example", {})
    assert far.tls is not None
    assert far.tls.check_hostname
    assert BusAddress.parse("nats://a.lab.example?insecure=yes", {}).tls is None
    credentials = tmp_path / "user.creds"
    with pytest.raises(ConfigError, match="ATOMSTREAM_BUS_CREDENTIALS"):
        BusAddress.parse("nats://host", {"ATOMSTREAM_BUS_CREDENTIALS": str(credentials)})
    credentials.touch()
    named = BusAddress.parse("nats://host", {"ATOMSTREAM_BUS_CREDENTIALS": str(credentials)})
    assert named.arguments()["user_credentials"] == str(credentials)
    assert (near.name, near.replicas) == ("atomstream", 1)
    three = BusAddress.parse("nats://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3?name=lab-a", {})
    assert (three.name, three.replicas) == ("lab-a", 3)


async def test_two_clusters_on_one_bus(nats_server: Nats, tmp_path: Path) -> None:
    """The first cluster to join owns the streams of a name; another one is refused, and takes another name."""
    address = BusAddress.parse(f"{nats_server.url}?name=owned", {})
    first = await Bus.open(address)
    try:
        for _ in range(2):
            await first.join("one")
        second = await Bus.open(address)
        try:
            with pytest.raises(ConfigError, match="belong to the cluster one"):
                await second.join("two")
            store = tmp_path / "store"
            join(FolderDocuments(tmp_path), LocalStore(store))
            (finding,) = (await check_cluster(None, str(store), address))[1:]
            assert not finding.ok
            assert "belong to the cluster one" in finding.text
        finally:
            await second.close()
        other = await Bus.open(BusAddress.parse(f"{nats_server.url}?name=other", {}))
        try:
            await other.join("two")
        finally:
            await other.close()
    finally:
        await first.close()


async def test_an_unreachable_or_too_small_bus(nats_server: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start ends with a sentence, although the connection is tried again for ever later."""
    monkeypatch.setattr("atomstream.server.ports.bus.CONNECT_S", 0.5)
    with pytest.raises(ConfigError, match=r"No connection to NATS at 127\.0\.0\.1:1"):
        await Bus.open(BusAddress.parse("nats://127.0.0.1:1", {}))
    with pytest.raises(ConfigError, match="must form a cluster"):
        await Bus.open(BusAddress.parse(f"{nats_server.url}?name=large&replicas=3", {}))


async def test_a_server_of_another_cluster_does_not_start(
    serve: Serve, postgres_server: PostgreSQL, nats_server: Nats, tmp_path: Path
) -> None:
    """Servers of one cluster share the streams of a name on NATS; one with another store is refused."""
    bus = BusAddress.parse(f"{nats_server.url}?name={uuid.uuid4().hex}", {})
    addresses = [await asyncio.to_thread(make_database, postgres_server) for _ in range(2)]
    for _ in range(2):
        await serve(catalogue=addresses[0], store=str(tmp_path / "one"), bus=bus)
    with pytest.raises(ConfigError, match=f"{bus.name}.*belong to the cluster"):
        await serve(catalogue=addresses[1], store=str(tmp_path / "two"), bus=bus)
