"""The machine that figures come from, named as the table's head."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from atomstream import __version__
from benchmarks.frames import SEED
from benchmarks.venvs import ACQUIRE, PEER

_OURS = ("numpy", "aiohttp", "zstandard", "google-crc32c", "zarr")


def machine_lines() -> list[str]:
    """CPU, cores, memory, system, versions, and where the frames are from."""
    packages = ", ".join(f"{name} {_version(name)}" for name in _OURS)
    return [
        f"CPU: {cpu_model()}, {_cores()} cores, {_memory_gb():.0f} GB; load at the start: {_load()}",
        f"System: {platform.platform()}; Python {platform.python_version()}; {packages}",
        f"Ours: atomstream {__version__}. Peer: {PEER.requirement}. Local writer: {ACQUIRE.requirement}.",
        f"Frames: atomstream.sources.Simulator, seed {SEED}, uint8, chunks of 240.",
        "Figures: the median of the runs (lowest .. highest); ratios are taken run by run.",
    ]


class Host:
    """What the host of a virtual machine takes of its processors from now on: it makes the longest waits longer."""

    def __init__(self) -> None:
        self._before = _processor_times()

    def line(self) -> str:
        """For the table's head."""
        ever, _ = after = _processor_times()
        steal, total = (now - then for now, then in zip(after, self._before, strict=True))
        share = f"{steal / total:.1%} of their time" if ever and total else "nothing is reported"
        return f"Taken from the machine's cores by its host meanwhile: {share}."


def _processor_times() -> tuple[int, int]:
    """Stolen ticks, and all (proc(5)); zeros where the system does not tell."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return ticks[7], sum(ticks)


def cpu_model() -> str:
    """As the processor names itself."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return float("nan")


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known here"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
