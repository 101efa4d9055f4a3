"""Runs a server in a child process for the duration of a ``with`` block.

The child exits when its standard input closes, also if this process is killed.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atomstream.errors import ConfigError
from atomstream.protocol import SERVER_KEY_PREFIX
from atomstream.system.child_process import child_command, child_environment

STOP_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """URL and API key of a running server; the key is made for this run and not stored."""

    url: str
    api_key: str
    data_dir: Path


@contextmanager
def embedded_server(data_dir: Path, port: int = 0) -> Iterator[EmbeddedServer]:
    """Run a server with the data folder ``data_dir`` in a child process; port 0 is any free port.

    Raises:
        ConfigError: The server could not start; the message is that of the child.
    """
    key = SERVER_KEY_PREFIX + secrets.token_urlsafe(32)
    child = _spawn()
    try:
        settings = {"data_dir": str(data_dir), "port": port, "api_key": key, "temporary_key": True}
        yield EmbeddedServer(_start_up(child, settings), key, data_dir)
    finally:
        _stop(child)


def _spawn() -> subprocess.Popen[str]:
    # Not in the process group of the terminal: after Ctrl-C the client still needs the server to deliver.
    return subprocess.Popen(
        child_command("atomstream.cli.embedded_child"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _start_up(child: subprocess.Popen[str], settings: dict[str, object]) -> str:
    if child.stdin is None or child.stdout is None:
        raise AssertionError("the child was started without pipes")
    with suppress(BrokenPipeError):
        child.stdin.write(json.dumps(settings) + "\n")
        child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise ConfigError("The embedded server exited before it listened; its messages are above.")
    answer = json.loads(line)
    if "error" in answer:
        raise ConfigError(answer["error"])
    return str(answer["url"])


def _stop(child: subprocess.Popen[str]) -> None:
    try:
        if child.stdin is not None:
            with suppress(OSError):
                child.stdin.close()
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
