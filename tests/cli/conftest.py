"""A real server for real commands, and the environment that leads to it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live_server import ThreadedServer


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    """A server of this test's own."""
    return serve_in_thread()


@pytest.fixture
def env(server: ThreadedServer, tmp_path: Path) -> dict[str, str]:
    """What a person would have set to use it."""
    return {
        "ATOMSTREAM_ENDPOINT": server.url,
        "ATOMSTREAM_API_KEY": server.api_key,
        "ATOMSTREAM_SPOOL_DIR": str(tmp_path / "spool"),
    }


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
