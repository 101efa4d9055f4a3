"""Whether a server can store chunks, asked while it runs and before it starts."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from atomstream.server.disk_errors import DiskState
from atomstream.server.preflight import check_start
from atomstream.server.settings import ServerSettings
from tests.cli.commands import atomstream_here
from tests.live_server import Serve
from tests.wire_client import WireClient


async def test_healthz_has_the_reason(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key: 200 while all is well, 503 with a sentence for each reason."""
    server = await serve()
    async with WireClient(server, headers={}) as client:
        well = {"live": True, "ready": True, "reasons": []}
        assert await client.ask("GET", "/healthz") == (200, well)
        monkeypatch.setattr(DiskState, "free_bytes", lambda self: 0)
        status, reply = await client.ask("GET", "/healthz")
        assert (status, reply["live"], reply["ready"]) == (503, True, False)
        assert "full (0.0 MB are free)" in reply["reasons"][0]
        monkeypatch.undo()
        (server.data_dir / "streams").rename(server.data_dir / "gone")
        status, reply = await client.ask("GET", "/healthz")
        assert status == 503
        assert "data folder" in reply["reasons"][0]
        assert str(server.data_dir) not in str(reply)
        (server.data_dir / "gone").rename(server.data_dir / "streams")
        assert await client.ask("GET", "/healthz") == (200, well)
        assert server.running is not None
        server.context.ingest.stop_receiving()
        assert (await client.ask("GET", "/healthz"))[1]["reasons"] == ["The server is stopping."]


async def test_a_start_is_checked_without_one(serve: Serve, tmp_path: Path) -> None:
    """Nothing is made; a folder and a port in use fail, and are named."""
    new = ServerSettings(data_dir=tmp_path / "a" / "new", port=0)
    findings = await asyncio.to_thread(check_start, new)
    assert [finding.name for finding in findings if not finding.ok] == []
    assert not (tmp_path / "a").exists()
    server = await serve()
    port = int(server.url.rsplit(":", 1)[1])
    used = ServerSettings(data_dir=server.data_dir, port=port)
    failing = {f.name: f.text for f in await asyncio.to_thread(check_start, used) if not f.ok}
    assert set(failing) == {"data folder", "address"}
    assert "Another atomstream server" in failing["data folder"]
    await server.stop()
    assert all(finding.ok for finding in await asyncio.to_thread(check_start, used))
    (server.data_dir / "keys.json").write_bytes(b"{")
    failing = {f.name: f.text for f in await asyncio.to_thread(check_start, used) if not f.ok}
    assert set(failing) == {"API key"}


def test_the_command_checks(tmp_path: Path) -> None:
    """``serve --check``: a line for each finding; exit code 0 or 2."""
    arguments = ("serve", "--check", "--data", str(tmp_path / "data"))
    done = atomstream_here(*arguments, "--port", "0")
    assert done.returncode == 0
    assert "FAILS" not in done.stdout
    assert "would be made" in done.stdout
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = atomstream_here(*arguments, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "FAILS  address" in done.stdout
