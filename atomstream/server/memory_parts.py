"""How the memory of a server is shared out between the server itself, decoding, and its analysis processes.

One setting, ``memory_bytes``, is the limit of all of them together. Two parts have limits of their own, which are
lowered to what it leaves, so that the sum of all parts is never above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from atomstream.errors import ConfigError

MIB: Final = 1 << 20
USUAL_BYTES: Final = 3072 * MIB
"""The limit where none is given."""
REQUEST_BYTES: Final = 128 * MIB
"""All bodies of requests, what is decoded from them, and all replies."""
SERVER_BYTES: Final = 512 * MIB
"""The server's own program (120 MiB), :data:`REQUEST_BYTES`, its caches (points of signals 96 MiB, columns 64 MiB), and
its connections."""
PROGRAM_BYTES: Final = 160 * MIB
"""The program of an analysis process with its libraries, before the first chunk."""
LEAST_WORKER_BYTES: Final = 96 * MIB
"""With less beyond its program a process can't analyse chunks of usual sizes."""
DECODED_FRAMES: Final = 3
"""Frames that a decoding thread holds at most."""
MOST_SHARED: Final = 4
"""Divisor: 1/n of the remaining memory is for shared frames, the rest for the processes."""


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """What shares the memory: analysis processes, decoding threads, and the bytes of the largest decoded frame."""

    workers: int
    decode_threads: int
    frame_bytes: int

    @property
    def fixed_bytes(self) -> int:
        """Memory of the programs and of decoding."""
        decoding = DECODED_FRAMES * self.frame_bytes * self.decode_threads
        return SERVER_BYTES + decoding + PROGRAM_BYTES * self.workers

    @property
    def least_bytes(self) -> int:
        """The smallest possible limit."""
        return self.fixed_bytes + LEAST_WORKER_BYTES * self.workers

    @property
    def usual_bytes(self) -> int:
        """The limit where none is given: more than usual for many processes, or for large frames."""
        return max(USUAL_BYTES, self.fixed_bytes + 4 * LEAST_WORKER_BYTES * self.workers)

    def shares(self, memory: int, most_shared: int, most_worker: int) -> tuple[int, int]:
        """Return the bytes for shared frames, and those for each process beyond its program.

        They are limited to ``most_shared`` and ``most_worker`` (0: limited by ``memory`` only).

        Raises:
            ConfigError: ``memory`` is below :attr:`least_bytes`.
        """
        if memory < self.least_bytes:
            raise ConfigError(
                f"memory_bytes={memory} is too little: with {self.workers} analysis process(es), "
                f"{self.decode_threads} decoding thread(s) and frames of up to {self.frame_bytes} bytes the server "
                f"needs {self.least_bytes} bytes. Give more, or lower analysis_workers, decode_threads or "
                "max_frame_bytes."
            )
        left = memory - self.fixed_bytes
        shared = min(most_shared, left // MOST_SHARED, left - LEAST_WORKER_BYTES * self.workers)
        each = (left - shared) // self.workers
        return shared, min(most_worker or each, each)
