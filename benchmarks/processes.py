"""Child processes of the benchmarks: background programs, and workers that print their result as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORKERS = Path(__file__).resolve().parent / "workers"
MODULES = {"ours": "atomstream.streaming", "peer": "atomscale.streaming"}


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python with these arguments and piped output for the duration of a ``with`` block."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def work(python: Path | str, worker: str, job: dict[str, Any], **env: str) -> dict[str, Any]:
    """Run ``workers/<worker>.py`` with ``job`` and the variables ``env``; return the JSON of its last line.

    Raises:
        RuntimeError: The worker failed; the message contains the end of its output.
    """
    command = [str(python), str(WORKERS / f"{worker}.py"), json.dumps(job)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**environment(), **env}
    )
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(
            f"{worker} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def environment() -> dict[str, str]:
    """Return the environment without variables that would change a result, and with this project on the path.

    Variables of Python are removed too: with PYTHONDONTWRITEBYTECODE each import of this project would compile
    again, while an installed peer is compiled only once.
    """
    strange = ("ATOMSTREAM_", "ATOMSCALE_", "PYTHON")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(strange)}
    return {
        **kept,
        "ATOMSCALE_SKIP_CLOCK_SYNC": "1",
        "ATOMSTREAM_SKIP_CLOCK_SYNC": "1",
        "PYTHONPATH": str(ROOT),
    }
