"""The services of a cluster start, answer, survive SIGKILL with what they stored, and end (atomstream.cluster)."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from atomstream.cluster.engine import Engine, free_ports
from atomstream.cluster.engines import Nats, PostgreSQL, SeaweedFS
from atomstream.cluster.local_cluster import LocalCluster
from atomstream.errors import ConfigError
from atomstream.server.ports.bus import Bus
from atomstream.server.ports.jetstream_log import JetStreamLog
from atomstream.server.postgres.address import PostgresAddress
from tests.databases import execute
from tests.engines import running
from tests.stores import s3_store


@pytest.mark.parametrize("make", [Nats, SeaweedFS, PostgreSQL])
def test_a_service_starts_again_after_a_kill(make: type[Engine]) -> None:
    """``start`` returns when the service answers; after SIGKILL it starts again at the same address."""
    with running(make) as engine:
        first, url = engine.pid, engine.url
        engine.kill()
        assert not engine.running
        engine.start()
        assert engine.running
        assert engine.pid != first
        assert engine.url == url
        engine.stop()
        assert not engine.running


async def test_a_new_process_goes_on_with_the_folders_of_an_earlier_one() -> None:
    """Other ports and another key: the bucket, the messages and the tables of the first services are still there."""
    entries = Entries()
    with running(Nats) as nats, running(SeaweedFS) as s3, running(PostgreSQL) as postgres:
        first = (nats, s3, postgres)
        await entries.write(*first)
        for engine in first:
            engine.stop()
        second = (Nats(nats.folder), SeaweedFS(s3.folder), PostgreSQL(postgres.folder))
        try:
            for before, engine in zip(first, second, strict=True):
                engine.start()
                assert engine.url != before.url
            await entries.check(*second)
        finally:
            for engine in second:
                engine.kill()


class Entries:
    """One entry in each of the services of a cluster."""

    async def write(self, nats: Nats, s3: SeaweedFS, postgres: PostgreSQL) -> None:
        bus = await Bus.connect(nats.url)
        await JetStreamLog(bus, "results").append("stream", b"a record", after=0)
        await bus.close()
        store = s3_store(s3, "again")
        store.put("streams/1", b"a chunk")
        store.close()
        execute(PostgresAddress.parse(postgres.url, {}), "CREATE TABLE names AS SELECT 7 AS number")

    async def check(self, nats: Nats, s3: SeaweedFS, postgres: PostgreSQL) -> None:
        bus = await Bus.connect(nats.url)
        (entry,) = await JetStreamLog(bus, "results").read("stream", 0)
        assert entry.payload == b"a record"
        await bus.close()
        store = s3_store(s3, "again")
        assert store.fetch("streams/1") == b"a chunk"
        store.put("streams/1", b"another")
        store.close()
        execute(
            PostgresAddress.parse(postgres.url, {}), "INSERT INTO names SELECT max(number) + 1 FROM names"
        )


def test_the_s3_server_refuses_a_request_without_a_signature(s3_server: SeaweedFS) -> None:
    """The key is required: an anonymous upload is refused."""
    request = urllib.request.Request(f"{s3_server.url}/atomstream/x", data=b"1", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)


def test_a_service_that_ends_at_once_is_an_error_with_its_log(tmp_path: Path) -> None:
    """A port that another program has taken: the error quotes the service's own message."""
    engine = Nats(tmp_path / "nats")
    with (
        socket.create_server(("127.0.0.1", int(engine.url.rpartition(":")[2]))),
        pytest.raises(ConfigError) as caught,
    ):
        engine.start()
    assert "NATS ended at once" in str(caught.value)
    assert "address already in use" in str(caught.value)


def test_a_cluster_keeps_its_key(tmp_path: Path) -> None:
    """A second start in one folder has the key of the first: clients have it."""
    assert LocalCluster(tmp_path).api_key == LocalCluster(tmp_path).api_key


def test_free_ports_differ() -> None:
    """Each port is free, and none is given twice."""
    assert len(set(free_ports(40))) == 40
