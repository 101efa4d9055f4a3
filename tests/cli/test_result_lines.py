from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from atomstream import cli
from atomstream.cli.console import LOG_WIDTH, fitted, status_parts
from atomstream.cli.result_lines import result_lines
from atomstream.login import resolve_login
from tests.cli.commands import atomstream
from tests.live_server import ThreadedServer


@pytest.mark.slow
def test_the_end_of_a_stream(serve_in_thread: Callable[..., ThreadedServer], tmp_path: Path) -> None:
    """The last lines on stderr have the address of the page, which exists, and the result with its reason."""
    server = serve_in_thread()
    np.save(tmp_path / "film.npy", np.random.default_rng(1).integers(0, 256, (60, 24, 32), np.uint8))
    done = atomstream(
        *("stream", tmp_path / "film.npy", "--fps", "30", "--no-pace", "--endpoint", server.url),
        *("--api-key", server.api_key),
        ATOMSTREAM_SPOOL_DIR=str(tmp_path / "spool"),
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (server.data_dir / "streams").iterdir()
    assert f"page: {server.url}/streams/{folder.name}\n" in done.stderr
    assert "growth rate: undetermined: " in done.stderr
    assert done.stdout.splitlines()[-1] == "Complete: every frame is stored."
    assert max(map(len, done.stderr.splitlines())) <= 200


def test_a_server_without_results(tmp_path: Path) -> None:
    """If the server can't be reached, or does not support the request, there are no lines and no error."""
    assert result_lines(resolve_login("atst_key", "http://127.0.0.1:9"), "one") == []


@pytest.mark.parametrize("reason", ["", "the server answers 507: " + "the disk is full " * 9])
def test_progress_fits_80_columns(reason: str) -> None:
    """A progress line has at most 80 characters whatever the numbers are, and keeps what matters."""
    stream = {"chunks_pending": 123456, "watermark": 9876543, "standing_still": reason}
    stats = {"streams": {"one": stream}, "bytes_out_per_s": 1.2e9, "buffer_bytes_used": 123e9}
    parts = status_parts(stats, "one")  # type: ignore[arg-type] # the fields that are used
    line = fitted(["100000.0 s", "123456789/123456789 frames", "100000 fps", *parts], LOG_WIDTH)
    assert len(line) <= LOG_WIDTH
    assert ("waiting: the server" in line) == bool(reason)
    short = fitted(
        ["   1.0 s", "120 frames", "120 fps", "1 chunk waits", "0 to 2 done", "1.2 MB/s", "3 MB held"], 80
    )
    assert short.endswith("3 MB held")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell gets its script, which asks the program."""
    done = CliRunner().invoke(cli.commands, ["completion", shell])
    assert "_ATOMSTREAM_COMPLETE" in done.output


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_words(tmp_path: Path) -> None:
    """The program answers the shell's question with its commands and options."""
    env = {**os.environ, "_ATOMSTREAM_COMPLETE": "bash_complete"}
    for words, expected in (
        ("atomstream str", {"stream", "streams"}),
        ("atomstream stream --f", {"--fps", "--frames"}),
    ):
        asked = {**env, "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = subprocess.run(
            [sys.executable, "-m", "atomstream.cli"],
            env=asked,
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert expected <= {line.partition(",")[2] for line in done.stdout.splitlines()}
