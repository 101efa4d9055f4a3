"""Python scripts that run in a separate process, which must exit without a signal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.paths import REPO

LIMIT_S = 100.0


def run_python(
    *arguments: str | Path, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` to its end; stdout and stderr are text. ``env`` is added to the environment."""
    words = [sys.executable, *map(str, arguments)]
    return run_to_end(words, {**os.environ, "PYTHONPATH": str(REPO), **env}, cwd)


def run_to_end(
    words: list[str], env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program with an empty input, for at most ``LIMIT_S``; stdout and stderr are text."""
    return subprocess.run(
        words,
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )
