from __future__ import annotations

import hashlib
import json
import re
import ssl
import subprocess
import urllib.request
from pathlib import Path

import numpy as np

from tests.cli.commands import COMMAND, Running, atomstream, atomstream_here, environment, running


def listening_url(command: Running) -> str:
    return command.wait_for("atomstream listens at ").split()[-1]


def get(url: str, key: str) -> object:
    request = urllib.request.Request(url, headers={"X-API-KEY": key})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_the_first_start_makes_a_key_and_shows_it_once(tmp_path: Path) -> None:
    """The key printed at the first start opens the server; the second start does not print it."""
    with running("serve", "--port", "0", "--data", tmp_path / "data") as command:
        url = listening_url(command)
        (key,) = re.findall(r"atst_\S+", command.text)
        assert get(f"{url}/projects/", key) == []
        command.interrupt()
        assert command.end() == 0
    with running("serve", "--port", "0", "--data", tmp_path / "data") as command:
        url = listening_url(command)
        assert "atst_" not in command.text
        assert "earlier start" in command.text
        assert get(f"{url}/projects/", key) == []


def test_one_line_on_stdout(tmp_path: Path) -> None:
    """stdout has only the line with the URL, so that a script can read it."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--data", str(tmp_path / "data")],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=60)
    assert re.fullmatch(r"atomstream listens at http://127\.0\.0\.1:\d+\n", first)
    assert rest == ""


def test_a_key_from_the_environment(tmp_path: Path) -> None:
    """A key from the environment is accepted and not printed."""
    with running(
        "serve", "--port", "0", "--data", tmp_path / "data", ATOMSTREAM_API_KEY="lab-secret-1-0123456789-abc"
    ) as command:
        assert get(f"{listening_url(command)}/projects/", "lab-secret-1-0123456789-abc") == []
        assert "lab-secret-1-0123456789-abc" not in command.text


def test_listening_on_the_network_needs_tls(tmp_path: Path) -> None:
    """With all addresses bound, the command needs TLS; it prints the fingerprint and a warning."""
    here = ("serve", "--host", "0.0.0.0", "--port", "0", "--data", tmp_path / "data")
    refused = atomstream_here(*here)
    assert (refused.returncode, "--insecure-network" in refused.stderr) == (2, True)
    with running(*here, "--tls", "self-signed") as command:
        url = listening_url(command)
        assert url.startswith("https://127.0.0.1:")
        assert "Other computers can reach this server" in command.text
        (fingerprint,) = re.findall(r"SHA-256 ([0-9a-f]{64})$", command.text, re.MULTILINE)
        shown = ssl.get_server_certificate(("127.0.0.1", int(url.rpartition(":")[2])))
        assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest() == fingerprint


def test_a_folder_that_another_server_owns(tmp_path: Path) -> None:
    """A second server on the same folder exits with 2 and a reason."""
    with running("serve", "--port", "0", "--data", tmp_path / "data") as command:
        listening_url(command)
        done = atomstream_here("serve", "--port", "0", "--data", tmp_path / "data")
    assert (done.returncode, "Another atomstream server" in done.stderr) == (2, True)


def test_reindex_restores_the_catalogue(tmp_path: Path) -> None:
    """If the database of the catalogue is missing, ``reindex`` restores the stream from the files."""
    data, key = tmp_path / "data", "lab-secret-2-0123456789-abc"
    np.save(tmp_path / "growth.npy", np.ones((4, 5, 6), np.uint8))
    with running("serve", "--port", "0", "--data", data, ATOMSTREAM_API_KEY=key) as command:
        url = listening_url(command)
        sent = atomstream_here(
            "stream", tmp_path / "growth.npy", "--fps", "2", "--no-pace", "--sample", "A1",
            ATOMSTREAM_API_KEY=key, ATOMSTREAM_ENDPOINT=url, ATOMSTREAM_SPOOL_DIR=str(tmp_path / "spool"),
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        command.interrupt()
        assert command.end() == 0
    for file in data.glob("*.sqlite*"):
        file.unlink()
    done = atomstream("reindex", "--data", data)
    assert done.returncode == 0, done.stderr
    assert "1 stream, 1 sample," in done.stdout


def test_reindex_of_no_data_folder(tmp_path: Path) -> None:
    """A folder without a server's files exits with 2 and stays empty."""
    done = atomstream_here("reindex", "--data", tmp_path)
    assert (done.returncode, "data folder" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_missing_extras_are_named(tmp_path: Path) -> None:
    """Without the packages of the server the command prints what to install and exits with 2."""
    (tmp_path / "zarr.py").write_text("raise ModuleNotFoundError('No module', name='zarr')\n")
    done = atomstream("serve", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "pip install 'atomstream[server]'" in done.stderr
