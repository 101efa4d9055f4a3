"""Description of the machine, as the head of the table."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from atomstream import __version__
from benchmarks.frames import SEED
from benchmarks.venvs import ACQUIRE, PEER

_OURS = ("numpy", "aiohttp", "zstandard", "google-crc32c", "zarr")


def machine_lines() -> list[str]:
    """Return CPU, cores, memory, system, versions, and the source of the frames."""
    packages = ", ".join(f"{name} {_version(name)}" for name in _OURS)
    return [
        f"CPU: {cpu_model()}, {_cores()} cores, {_memory_gb():.0f} GB; load at the start: {_load()}",
        f"System: {platform.platform()}; Python {platform.python_version()}; {packages}",
        f"Ours: atomstream {__version__}. Peer: {PEER.requirement}. Local writer: {ACQUIRE.requirement}.",
        f"Frames: atomstream.sources.Simulator, seed {SEED}, uint8, chunks of 240.",
        "Figures: the median of the runs (lowest .. highest); ratios are taken run by run.",
    ]


class Host:
    """CPU time that the host of a virtual machine takes (steal time), from the creation of this object on."""

    def __init__(self) -> None:
        self._before = _processor_times()

    def line(self) -> str:
        """Return the line for the head of the table."""
        ever, _ = after = _processor_times()
        steal, total = (now - then for now, then in zip(after, self._before, strict=True))
        share = f"{steal / total:.1%} of their time" if ever and total else "nothing is reported"
        return f"Taken from the machine's cores by its host meanwhile: {share}."


def _processor_times() -> tuple[int, int]:
    """Return steal ticks and all ticks (proc(5)); zeros if the system does not report them."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return ticks[7], sum(ticks)


def cpu_model() -> str:
    """Return the model name of the CPU."""
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
