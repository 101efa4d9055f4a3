"""Live results: the analysis of streams while they run, and the ways out of the server.

The HTTP side is described in ``docs/live_api.md``. Inside, a chunk goes::

    stored -> order (index order; a gap waits) -> worker (a process; frames through shared memory, or the
    shard's file) -> store (per-frame columns in the Zarr group, a numbered record in ``analysis/results.log``)
    -> feed (every reader has a place in the log, none holds memory of its own)

What a user says of a stream (marks, regions, calibration, labels) lies in ``analysis/inputs.log``. Both logs
are the truth for what they hold; the analyser's own state is a shortcut that is made again where it is lost.
"""

from __future__ import annotations
