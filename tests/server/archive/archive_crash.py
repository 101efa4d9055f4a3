"""Run as a script: commits that die. ``archive_crash.py FOLDER steps|stream``.

``steps``: for n = 1, 2, .. a forked child commits two chunks and is killed by SIGKILL at its n-th fsync or
rename, before it in one run and after it in another; the last child finishes. Prints ``folder answered...``.

``stream``: commits chunks from four threads without end and prints the index of each once it is answered,
until somebody kills it.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zarr.codecs  # noqa: F401  (here, so that the children need not)

from tests.server.archive.archive_helpers import commit, new_archive


def say(text: str) -> None:
    """Tell the parent, at once."""
    os.write(1, f"{text}\n".encode())


class DieAt:
    """Counts calls of os.fsync and os.replace, and kills this process before or after the n-th."""

    def __init__(self, n: int, *, after: bool) -> None:
        self.left = n
        self.after = after
        os.fsync = self.wrap(os.fsync)
        os.replace = self.wrap(os.replace)

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """``real``, deadly at the n-th call."""

        def call(*args: Any) -> None:
            self.left -= 1
            if self.left == 0 and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*args)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        return call


def one_life(folder: Path, n: int, *, after: bool) -> None:
    """Commit chunks 0 and 1, dying at the n-th step."""
    archive = new_archive(folder)
    DieAt(n, after=after)
    for index in range(2):
        commit(archive, index)
        say(f"{folder} {index}")


def steps(folder: Path) -> None:
    """Every step of two commits, one life each."""
    for n, after in ((n, after) for n in itertools.count(1) for after in (False, True)):
        place = folder / f"{n}{'after' if after else 'before'}"
        child = os.fork()
        if child == 0:
            one_life(place, n, after=after)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        say(f"{place} died" if status else f"{place} lived")
        if status not in (0, signal.SIGKILL):
            sys.exit(f"a child ended with {status}")
        if status == 0:
            return


def stream(folder: Path) -> None:
    """Commit for ever, from four threads that share the indices."""
    archive, indices = new_archive(folder), itertools.count()

    def work() -> None:
        for index in indices:
            commit(archive, index)
            say(str(index))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    {"steps": steps, "stream": stream}[sys.argv[2]](Path(sys.argv[1]))
