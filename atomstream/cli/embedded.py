"""A server of one's own for as long as a block lasts, in a process beside this one.

Its standard input is the leash: when it closes, by our will or by our death of any kind, the server ends.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atomstream.config import SERVER_KEY_PREFIX
from atomstream.errors import ConfigError

STOP_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """Where it listens, and the key that opens it (made for this run, kept nowhere)."""

    url: str
    api_key: str
    data_dir: Path


@contextmanager
def embedded_server(data_dir: Path, port: int = 0) -> Iterator[EmbeddedServer]:
    """Run a server on ``data_dir`` in a process of its own.

    Raises:
        ConfigError: it could not start; the sentence is its own.
    """
    key = SERVER_KEY_PREFIX + secrets.token_urlsafe(32)
    child = _spawn()
    try:
        settings = {"data_dir": str(data_dir), "port": port, "api_key": key}
        yield EmbeddedServer(_told_url(child, settings), key, data_dir)
    finally:
        _end(child)


def _spawn() -> subprocess.Popen[str]:
    # Out of the terminal's group: a Ctrl-C is for the client, which still needs its server to deliver.
    return subprocess.Popen(
        [sys.executable, "-m", "atomstream.cli.embedded_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _told_url(child: subprocess.Popen[str], settings: dict[str, object]) -> str:
    if child.stdin is None or child.stdout is None:
        raise AssertionError("the child has pipes")
    with suppress(BrokenPipeError):
        child.stdin.write(json.dumps(settings) + "\n")
        child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise ConfigError("The embedded server ended before it listened; what it said is above.")
    said = json.loads(line)
    if "error" in said:
        raise ConfigError(said["error"])
    return str(said["url"])


def _end(child: subprocess.Popen[str]) -> None:
    try:
        if child.stdin is not None:
            with suppress(OSError):
                child.stdin.close()
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
