"""Programs of their own: a background one for as long as a block lasts, and workers that answer in JSON."""

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
    """This Python with these arguments, its output piped; ended with the block."""
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
    """Run ``workers/<worker>.py`` with ``job``, and ``env`` set; what its last line of output says.

    Raises:
        RuntimeError: it failed; the message has the end of what it said.
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
    """Ours, without what would change a run; the package is found from its folder.

    Python's own variables go too: without bytecode on disk (PYTHONDONTWRITEBYTECODE) every import of
    ours would compile, while an installed peer is compiled once and for all.
    """
    strange = ("ATOMSTREAM_", "ATOMSCALE_", "PYTHON")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(strange)}
    return {
        **kept,
        "ATOMSCALE_SKIP_CLOCK_SYNC": "1",
        "ATOMSTREAM_SKIP_CLOCK_SYNC": "1",
        "PYTHONPATH": str(ROOT),
    }
