"""Start and stop of a server: it listens, reports its address, and ends cleanly."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest

from atomstream.errors import ConfigError
from atomstream.server import ServerSettings
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.http.origin import HostGuard
from tests.live_server import Serve
from tests.server.held_commits import hold_commits
from tests.wire_client import Address, WireClient, make_frames, raw_connection, shard_bytes

PROGRAM = """
import asyncio, sys
from atomstream.server import ServerSettings, run_server
settings = ServerSettings(data_dir=sys.argv[1], port=0, api_key="lab-key-0123456789-abcdefghij")
asyncio.run(run_server(settings, on_ready=lambda server: print(server.url, flush=True)))
print("ended", flush=True)
"""


async def test_a_used_port_is_an_error(serve: Serve) -> None:
    """A port in use is one clear error, and the folder is free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            await serve(port=port)


@pytest.mark.parametrize(
    "bad",
    [
        {"port": -1},
        {"port": 70000},
        {"silence_s": 0.0},
        {"host": ""},
        {"public_url": "ftp://x"},
        {"url_ttl_s": float("nan")},
    ],
    ids=str,
)
def test_invalid_settings_are_errors(tmp_path: Path, bad: dict[str, object]) -> None:
    """An invalid setting is refused before anything is created."""
    with pytest.raises(ConfigError):
        ServerSettings(data_dir=tmp_path, **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])
async def test_url_works_on_this_machine(serve: Serve, host: str) -> None:
    """For any listening address, the reported URL works on this machine."""
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    server = await serve(host=host, insecure_network=True)
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/health") as reply:
        assert reply.status == 200


def has_ipv6() -> bool:
    """True if a socket can be bound to ::1."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("host", "name", "known"),
    [
        ("127.0.0.1", "192.168.1.5:8765", False),
        ("0.0.0.0", "192.168.1.5:8765", True),
        ("0.0.0.0", socket.gethostname(), True),
        ("::", "[fe80::1]:8765", True),
        ("0.0.0.0", "evil.example", False),
        ("192.168.1.5", "192.168.1.5", True),
        ("192.168.1.5", "192.168.1.6", False),
    ],
)
def test_names_of_a_server(tmp_path: Path, host: str, name: str, known: bool) -> None:
    """Bound to all addresses, a server accepts any literal IP (rebinding needs a name); else only the bound one."""
    assert HostGuard(ServerSettings(data_dir=tmp_path, host=host)).accepts(name) is known


async def test_stop_lets_complete_uploads_finish(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard whose body is complete is committed and answered although the server is stopping."""
    commits = hold_commits(monkeypatch)
    server = await serve()
    frames = make_frames(4)
    async with WireClient(server) as client:
        data_id = await client.create()
        upload = asyncio.create_task(client.send(data_id, 0, frames))
        await asyncio.to_thread(commits.began.wait)
        stop = asyncio.create_task(server.stop())
        while await answers(server.url):
            pass
        commits.go_on.set()
        assert (await upload)[0] == 200
        await stop
    assert np.array_equal(server.archive(data_id).frames(0, 4), frames)


@pytest.mark.parametrize("turns", range(5))
async def test_no_socket_outlives_the_server(serve: Serve, turns: int) -> None:
    """A connection accepted at the moment of the stop is closed, at any stage in asyncio."""
    server = await serve()
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.stop()
        client.settimeout(60)
        assert await asyncio.to_thread(closed_by_peer, client)
    gc.collect()  # a socket that was not closed warns here


def closed_by_peer(client: socket.socket) -> bool:
    """True if the peer has closed or reset the connection."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


async def answers(url: str) -> bool:
    """True if a server listens there."""
    try:
        async with raw_connection(url):
            return True
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM for child processes")
def test_signals_end_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end a server with status 0, and its folder can be used at once."""
    program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    for _ in range(2):
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("http://127.0.0.1:")
            server.send_signal(number)
            assert server.stdout.read() == "ended\n"
            assert server.wait() == 0


@pytest.mark.slow
async def test_four_large_shards_at_once(tmp_path: Path) -> None:
    """Four concurrent shards of 41 MB are stored, and the memory of the server grows by less than one of them."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 1024, 1024), dtype=np.uint8)
    body = tmp_path / "shard"
    body.write_bytes(shard_bytes(frames))
    program = [sys.executable, "-c", PROGRAM, str(tmp_path / "data")]
    server = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        url = (await server.stdout.readline()).decode().strip()
        async with WireClient(Address(url, "lab-key-0123456789-abcdefghij")) as client:
            data_id = await client.create()
            targets = [await client.url(data_id, index, frames.shape, 40) for index in range(5)]
        await put_file(targets[0], body)  # the baseline is the memory after one upload
        grown = await peak_growth(psutil.Process(server.pid), [put_file(url, body) for url in targets[1:]])
    finally:
        server.terminate()
        await server.communicate()
    assert grown < body.stat().st_size
    assert StreamArchive.open(tmp_path / "data" / "streams" / data_id).n_frames() == 200


async def put_file(url: str, body: Path) -> None:
    """PUT a file."""
    with body.open("rb") as file:
        async with aiohttp.ClientSession() as session, session.put(url, data=file) as reply:
            assert reply.status == 200, await reply.text()


async def peak_growth(process: psutil.Process, work: list[Coroutine[Any, Any, None]]) -> int:
    """The largest growth of the memory of ``process``, in bytes, during ``work``."""
    base = peak = process.memory_info().rss
    running = asyncio.gather(*work)
    while not running.done():
        peak = max(peak, process.memory_info().rss)
        await asyncio.wait([running], timeout=0.01)
    await running
    return peak - base
