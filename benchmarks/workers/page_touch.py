"""Cost of the first access to memory: huge pages of a new mapping, each written once. Prints one JSON line.

The system clears each page in 0.1 ms. The host of a virtual machine may have to allocate the memory first: then each
first access, also the copy of a socket, takes milliseconds that count as CPU time of the process.
"""

from __future__ import annotations

import json
import mmap
import sys
import time

HUGE: int = 2 << 20


def touch(nbytes: int) -> list[float]:
    """Return the time in s for each 2 MiB of ``nbytes``."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    with mmap.mmap(-1, nbytes, **private) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return [_timed(memory, at) for at in range(0, nbytes, HUGE)]


def _timed(memory: mmap.mmap, at: int) -> float:
    begun = time.perf_counter()
    memory[at] = 1
    return time.perf_counter() - begun


def main() -> None:
    seconds = sorted(touch(json.loads(sys.argv[1])["nbytes"]))
    print(json.dumps({"median_s": seconds[len(seconds) // 2], "longest_s": seconds[-1]}))


if __name__ == "__main__":
    main()
