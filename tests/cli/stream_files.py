"""Streams files, given as arguments, one after the other, and prints the peak of memory in bytes after each one."""

from __future__ import annotations

import sys
from pathlib import Path

from atomstream.cameras import Transforms
from atomstream.cli.playback import PlaybackPlan
from atomstream.sources import ReadAhead, open_source
from atomstream.streaming import RHEEDStreamer
from atomstream.testing import MemoryService

BUFFER = 4 << 20
CHUNK = 8


def main() -> None:
    with (
        MemoryService() as service,
        RHEEDStreamer(service.api_key, service.url, spool_dir=sys.argv[1], buffer_bytes=BUFFER) as streamer,
    ):
        for path in sys.argv[2:]:
            frames = stream(streamer, Path(path))
            sys.stdout.write(f"{frames} {peak_bytes()}\n")


def stream(streamer: RHEEDStreamer, path: Path) -> int:
    """Send the whole file as ``atomstream stream --no-pace`` does; returns the frames that are stored."""
    source = open_source(path)
    data_id = streamer.initialize(120.0, 0.0, CHUNK)
    plan = PlaybackPlan(streamer, data_id, source, 120.0, Transforms())
    with ReadAhead(source.chunks(CHUNK)) as chunks:
        frames = sum(plan.send(chunk) for chunk in plan.chunks(chunks, pace=False))
    report = streamer.finalize(data_id)
    assert not report["lost"]
    return frames


def peak_bytes() -> int:
    # Not getrusage, whose peak contains that of the program which started this one.
    with open("/proc/self/status", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
