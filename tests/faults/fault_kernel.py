"""System tools for faults: inject errors into system calls, mount a small disk, change a process's clock."""

from __future__ import annotations

import functools
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
NO_STRACE = "strace is not here, or ptrace is not allowed"
NO_MOUNT = "this user may not mount a tmpfs in a new namespace (unshare -Urm)"
NO_COMPILER = "no C compiler here for the clock's shim, or this is not Linux"


@functools.cache
def can_trace() -> bool:
    """True if errors can be injected into system calls."""
    return sys.platform == "linux" and _works("strace", "-f", "-o", os.devnull, "true")


@functools.cache
def can_mount() -> bool:
    """True if a process can get a separate tmpfs."""
    return sys.platform == "linux" and _works("unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt")


@functools.cache
def can_step_clocks() -> bool:
    """True if a process can get a separate wall clock."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def injected(fault: str) -> list[str]:
    """The command prefix that injects a fault into system calls, such as ``rename:error=EIO:when=3``."""
    return ["strace", "-f", "-o", os.devnull, "-e", "trace=" + fault.split(":")[0], "-e", f"inject={fault}"]


def on_a_disk_of(size: str, folder: Path, more: str = "true") -> list[str]:
    """The command prefix that mounts a tmpfs of ``size`` at ``folder``; then ``more``, a shell command, is run."""
    folder.mkdir(parents=True, exist_ok=True)
    script = f'mount -t tmpfs -o size={size} none "$0" && cd / && {more} && exec "$@"'
    return ["unshare", "-Urm", "sh", "-c", script, str(folder)]


class SteppedClock:
    """A wall clock for another process, which the test can change. The monotonic clock is not changed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock-offset"
        self._library = folder / "clock.so"
        self.step_to(0.0)
        source = str(HERE / "fault_clock.c")
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), source, "-ldl"], check=True
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make a process use this clock."""
        return {"LD_PRELOAD": str(self._library), "FAULT_CLOCK": str(self._file)}

    def step_to(self, offset_s: float) -> None:
        """Set the offset from the true clock to ``offset_s`` seconds."""
        new = self._file.with_suffix(".new")
        if not self._file.exists():
            new.write_bytes(bytes(8))
            new.replace(self._file)
        with self._file.open("r+b") as file:  # in place, because the process has mapped the file
            file.write(struct.pack("<q", int(offset_s * 1e9)))

    @staticmethod
    def now_ms() -> float:
        """The true time."""
        return time.time() * 1000.0


def _works(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
