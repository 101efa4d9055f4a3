from __future__ import annotations

import subprocess
import sys

import pytest

from atomstream import __version__
from tests.cli.commands import REPO, atomstream, environment

HEAVY = ["numpy", "aiohttp", "anyio", "zstandard", "zarr", "sqlalchemy", "msgspec", "scipy", "av", "tifffile"]


def test_help_imports_nothing_heavy() -> None:
    """``--help`` shows examples and exit codes, and imports no heavy library."""
    script = (
        "import sys; from atomstream.cli import commands;"
        "commands.main(['--help'], prog_name='atomstream', standalone_mode=False);"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        cwd=REPO,
    )
    assert "atomstream demo" in done.stdout
    assert "130  Ctrl-C" in done.stdout
    assert done.stdout.strip().endswith("LOADED []")


@pytest.mark.parametrize("command", ["demo", "serve", "stream", "reindex", "project create"])
def test_each_command_shows_how_it_is_used(command: str) -> None:
    """The help of each command has an example."""
    done = atomstream(*command.split(), "--help")
    assert done.returncode == 0
    assert f"  atomstream {command} " in done.stdout or f"  atomstream {command}\n" in done.stdout


def test_version_is_the_package_s() -> None:
    """``--version`` prints the installed version."""
    assert __version__ in atomstream("--version").stdout


def test_an_unknown_option_is_bad_usage() -> None:
    """A usage error exits with 2 and a message on stderr, without a traceback."""
    done = atomstream("serve", "--colour", "blue")
    assert done.returncode == 2
    assert "--colour" in done.stderr
    assert "Traceback" not in done.stderr
