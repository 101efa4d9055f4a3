"""The services of a cluster start, answer, survive SIGKILL with what they stored, and end (atomstream.cluster)."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from atomstream.cluster.engine import Engine, free_ports
from atomstream.cluster.engines import Nats, PostgreSQL, SeaweedFS
from atomstream.errors import ConfigError
from tests.engines import running


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


def test_free_ports_differ() -> None:
    """Each port is free, and none is given twice."""
    assert len(set(free_ports(40))) == 40
