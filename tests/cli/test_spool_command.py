"""``atomstream spool``: list, deliver, and delete after a confirmation."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from atomstream import RHEEDStreamer
from atomstream.login import NO_SERVER
from atomstream.records import Frames
from tests.live_server import ThreadedServer

ServeInThread = Callable[..., ThreadedServer]


def frames(seed: int) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (4, 16, 20), dtype=np.uint8)


def atomstream(
    *arguments: str, spool: Path, say: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``atomstream spool`` in a child process."""
    return subprocess.run(
        [sys.executable, "-m", "atomstream.cli", "spool", *arguments, "--spool-dir", str(spool)],
        input=say,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def left(serve_in_thread: ServeInThread, tmp_path: Path) -> tuple[ThreadedServer, str]:
    """A stopped server, and a stream with two chunks in the spool for it."""
    server = serve_in_thread()
    with RHEEDStreamer(server.api_key, server.url, None, tmp_path, spool_min_free_bytes=0) as streamer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            data_id = streamer.initialize(120.0, 0.0, 4, "Sb\x1b[31m on GaAs")
        server.stop()
        for k in range(2):
            streamer.push(data_id, k, frames(k))
    return server, data_id


def test_list_shows_waiting_chunks(left: tuple[ThreadedServer, str], tmp_path: Path) -> None:
    """Each stream has a row with id, server and waiting chunks; control characters in names are replaced."""
    server, data_id = left
    shown = atomstream("list", spool=tmp_path)
    assert shown.returncode == 0
    row = next(line for line in shown.stdout.splitlines() if data_id in line)
    assert server.url in row
    assert "Sb?[31m on GaAs" in row
    assert row.split()[-4] == "2"
    assert row.endswith("open")


def test_a_missing_spool_is_not_an_error(tmp_path: Path) -> None:
    """Without a spool the list states that no chunk is waiting, and makes no folder."""
    shown = atomstream("list", spool=tmp_path / "none")
    assert shown.returncode == 0
    assert "no chunk is waiting" in shown.stdout
    assert not (tmp_path / "none").exists()


def test_resume_delivers_and_finalizes(left: tuple[ThreadedServer, str], tmp_path: Path) -> None:
    """``resume`` delivers the chunks and ends the stream; then the spool is empty."""
    server, data_id = left
    server.start()
    done = atomstream("resume", "--finalize", spool=tmp_path, ATOMSTREAM_API_KEY=server.api_key)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(
        server.archive(data_id).frames(0, 8), np.concatenate([frames(0), frames(1)])
    )
    assert "No chunk is waiting" in atomstream("list", spool=tmp_path).stdout


def test_recordings_without_a_server(serve_in_thread: ServeInThread, tmp_path: Path) -> None:
    """The list shows recordings without a server as such; ``resume`` assigns them to the server that is named, and
    never guesses one."""
    with RHEEDStreamer(NO_SERVER.api_key, NO_SERVER.endpoint, None, tmp_path, spool_min_free_bytes=0) as made:
        local = made.initialize(2.0, 0.0, 4, "offline")
        made.push(local, 0, frames(0))
    row = next(line for line in atomstream("list", spool=tmp_path).stdout.splitlines() if local in line)
    assert "none yet" in row
    assert NO_SERVER.endpoint not in row
    refused = atomstream("resume", spool=tmp_path)
    assert (refused.returncode, "Give the server with --endpoint" in refused.stderr) == (2, True)
    server = serve_in_thread()
    done = atomstream(
        "resume", "--finalize", "--endpoint", server.url, spool=tmp_path, ATOMSTREAM_API_KEY=server.api_key
    )
    assert done.returncode == 0, done.stderr
    (folder,) = server.context.settings.streams_dir.iterdir()
    np.testing.assert_array_equal(server.archive(folder.name).frames(0, 4), frames(0))


def test_purge_asks_first(left: tuple[ThreadedServer, str], tmp_path: Path) -> None:
    """Without a confirmation nothing is deleted; with it the stream is deleted and reported."""
    _, data_id = left
    kept = atomstream("purge", data_id, spool=tmp_path, say="n\n")
    assert kept.returncode == 1
    assert "2 chunks were never delivered" in kept.stdout
    assert len(list(tmp_path.rglob("*.rec"))) == 2
    gone = atomstream("purge", data_id, spool=tmp_path, say="y\n")
    assert gone.returncode == 0, gone.stderr
    assert not list(tmp_path.rglob("*.rec"))


def test_an_unknown_stream_is_reported(tmp_path: Path) -> None:
    """An unknown id gives a message and exit code 2."""
    wrong = atomstream("purge", "no-such-stream", spool=tmp_path)
    assert wrong.returncode == 2
    assert "The spool has no stream no-such-stream" in wrong.stderr
    assert "Traceback" not in wrong.stderr
