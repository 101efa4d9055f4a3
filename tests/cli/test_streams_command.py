"""``atomstream streams``: list, end, rename, move and delete on a real server."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest

from atomstream import RHEEDStreamer
from atomstream.service import payloads
from tests.cli.commands import atomstream_here
from tests.live_server import ThreadedServer
from tests.wire_client import make_frames


def test_the_life_of_a_stream(
    serve_in_thread: Callable[..., ThreadedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command makes the change that it prints; a deletion asks first, and the exit codes are those of the other
    commands.
    """
    monkeypatch.setattr(payloads, "PAGE", 1)  # so that the list has several pages
    server = serve_in_thread()
    env = {"ATOMSTREAM_ENDPOINT": server.url, "ATOMSTREAM_API_KEY": server.api_key}

    def run(*words: str, code: int = 0) -> str:
        done = atomstream_here(*words, **env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    with RHEEDStreamer(server.api_key, server.url) as streamer:
        ids = [streamer.initialize(2.0, 0.0, 4, stream_name=name) for name in ("GaN 1", "STO 1")]
        streamer.push(ids[0], 0, make_frames(4))
        streamer.flush(ids[0])
        run("project", "create", "Nitrides")
        assert ids[0] in run("streams", "list", "gan")
        assert ids[1] not in run("streams", "list", "gan")
        run("streams", "rename", ids[0], "GaN on Si")
        assert "moved from 'no project' to 'Nitrides'" in run("streams", "move", ids[0], "nitrides")
        run("streams", "move", ids[0], "--sample", "Wafer", code=2)
        run("streams", "move", ids[0], code=2)
        run("streams", "move", ids[0], "--new-sample", "Wafer 12")
        assert ids[0] in run("streams", "list", "wafer")
        assert "to no sample" in run("streams", "move", ids[0], "--no-sample")
        assert "to sample 'Wafer 12'" in run("streams", "move", ids[1], "--sample", "wafer 12")
        assert re.search(rf"{ids[0]}  stream_active +2\.0 s  Nitrides  GaN on Si", run("streams", "list"))
        run("streams", "end", ids[0])
        run("streams", "move", ids[0], "--no-project")
        assert re.search(rf"{ids[0]}  success +2\.0 s  -  GaN on Si", run("streams", "list"))
        assert "There is no project 'x'" in run("streams", "move", ids[0], "x", code=2)
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        assert "Nothing was deleted" in run("streams", "delete", ids[0], code=1)
        assert ids[0] in run("streams", "list")
        run("streams", "delete", "--yes", ids[0])
        assert f"Deleted {ids[0]}" in run("streams", "delete", "--yes", ids[0])  # a repeat is not an error
        assert "is known here" in run(
            "streams", "delete", "--yes", "11111111-1111-4111-8111-111111111111", code=3
        )
        listed = run("streams", "list")
        assert (ids[0] in listed, ids[1] in listed) == (False, True)
