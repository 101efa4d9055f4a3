"""A script whose process is killed during commits:

``archive_crash.py FOLDER steps|stream``. ``steps``: for n = 1, 2, .. a forked child commits two chunks and is killed
by SIGKILL before its n-th fsync or rename, then others after their n-th rename; the last child of each kind finishes.
(The files that a killed process leaves are the same before and after an fsync.) It prints ``folder answered...``.
``stream``: four threads commit chunks without end; prints the index of each committed chunk, until the
process is killed.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import zarr.codecs  # noqa: F401  (here, so that the children need not)

from atomstream.system.files import FileSystem
from tests.server.archive.archive_helpers import commit, new_archive


def report(text: str) -> None:
    """Print a line to the parent process, unbuffered."""
    os.write(1, f"{text}\n".encode())


class KillingFileSystem(FileSystem):
    """Counts syncs and renames, and kills this process before the n-th one; or ``after`` the n-th rename."""

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self.left = 0
        self.after = after

    def _count(self, call: Callable[[], None]) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        call()
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def sync(self, fd: int) -> None:
        if self.after:
            super().sync(fd)
        else:
            self._count(lambda: super(KillingFileSystem, self).sync(fd))

    def sync_folder(self, path: Path) -> None:
        if self.after:
            super().sync_folder(path)
        else:
            self._count(lambda: super(KillingFileSystem, self).sync_folder(path))

    def rename(self, source: Path, target: Path) -> None:
        self._count(lambda: super(KillingFileSystem, self).rename(source, target))


def one_life(folder: Path, n: int, *, after: bool) -> None:
    """Commit chunks 0 and 1; the process is killed at the n-th step."""
    file_system = KillingFileSystem(after=after)
    archive = new_archive(folder, file_system)
    file_system.left = n
    for index in range(2):
        commit(archive, index)
        report(f"{folder} {index}")


def steps(folder: Path) -> None:
    """Two commits, in one child process for each step at which it is killed."""
    for after in (False, True):
        for n in itertools.count(1):
            place = folder / f"{n}{'after' if after else 'before'}"
            child = os.fork()
            if child == 0:
                one_life(place, n, after=after)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            report(f"{place} died" if status else f"{place} lived")
            if status not in (0, signal.SIGKILL):
                sys.exit(f"a child ended with {status}")
            if status == 0:
                break


def stream(folder: Path) -> None:
    """Commit without end, from four threads that share the indices."""
    archive, indices = new_archive(folder), itertools.count()

    def work() -> None:
        for index in indices:
            commit(archive, index)
            report(str(index))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    {"steps": steps, "stream": stream}[sys.argv[2]](Path(sys.argv[1]))
