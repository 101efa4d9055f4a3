"""Memory that encoders write compressed frames to: it comes back by itself once nobody holds a view of it.

A shard's bytes go to the socket and to the disk at their own times, in pieces that the network library may hold
for a while: so the last view decides, not a count of ours. Pages that were never needed are never touched.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Final

from atomstream.pipeline.pages import MAPPED_BYTES, fresh
from atomstream.pipeline.spares import Spare, Spares
from atomstream.shard import Run

_WASTE: Final = 1 / 8
_NOTABLE: Final = 64 << 10


class Slab:
    """Memory for one run of compressed frames; ``view`` is all of it."""

    def __init__(self, spare: Spare, view: memoryview) -> None:
        self._spare = spare
        self.view = view

    def keep(self, run: Run) -> Run:
        """``run``, which was packed here, so that it holds hardly more memory than its bytes (promise P7).

        Where earlier runs touched much more of this memory than it needs, it is copied out, and that
        memory goes. All of a small slab counts as touched, for the C library hands out what others used before.
        """
        used, spare = len(run.piece), self._spare
        mapped = spare.memory.nbytes >= MAPPED_BYTES
        spare.touched = max(spare.touched, used) if mapped else spare.memory.nbytes
        if spare.touched - used <= max(_NOTABLE if mapped else 0, used * _WASTE):
            return run
        spare.worn = True
        return replace(run, piece=bytes(run.piece))


class SlabPool:
    """Lends slabs; any thread may ask."""

    def __init__(self, spares: Spares) -> None:
        self._spares = spares

    def lend(self, nbytes: int) -> Slab:
        """A slab of ``nbytes``, touched already where there is one; it is free again with its last view."""
        spare = self._spares.take("shard", nbytes) or Spare("shard", fresh(nbytes), 0)
        lease = spare.memory[:]  # an array of its own: all views of the slab hold it, and nothing else does
        weakref.finalize(lease, self._spares.give, spare).atexit = False
        return Slab(spare, lease.data)
