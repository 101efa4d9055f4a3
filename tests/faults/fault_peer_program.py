"""The hosted service's own client with the same orders as fault_pusher.py, run by its own Python.

It follows the client's public guide. Its spool folder is always separate and empty. Never imported.
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
from atomscale.streaming import RHEEDStreamer


def write_line(side: int, *words: object) -> None:
    line = (" ".join(map(str, words)) + "\n").encode()
    os.write(side, line)
    os.write(1, line)


def chunk(film: dict, index: int) -> np.ndarray:
    draw = np.random.default_rng((film["seed"], index))
    return draw.integers(0, 256, (film["n"], film["height"], film["width"]), dtype=np.uint8)


def push_all(streamer: RHEEDStreamer, data_id: str, orders: dict, side: int) -> None:
    for index in range(orders.get("count", 10)):
        if index == orders.get("pause_at"):
            write_line(side, "paused", index)
            sys.stdin.readline()
        write_line(side, "pushing", index)
        for _ in range(1 + orders.get("repeat", False)):
            streamer.push(data_id, index, chunk(orders["film"], index))
        write_line(side, "accepted", index)


def drain(streamer: RHEEDStreamer, side: int, patience_s: float = 8.0) -> None:
    """Wait until no chunk is pending in the spool."""
    deadline = time.monotonic() + patience_s
    while streamer.spool_status()["chunks_pending"] and time.monotonic() < deadline:
        time.sleep(0.05)
    write_line(side, "drained", streamer.spool_status()["chunks_pending"])


def main() -> None:
    orders = json.loads(sys.argv[1])
    side = os.open(orders["side"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    write_line(side, "pid", os.getpid())
    streamer = RHEEDStreamer(
        api_key=orders["key"], endpoint=orders["url"], spool_dir=orders["spool"],
        spool_max_bytes=orders.get("settings", {}).get("spool_max_bytes"), spool_min_free_bytes=0,
    )  # fmt: skip
    if orders.get("end") == "drain":
        # It delivers the chunks of an earlier process only after it has created a stream.
        streamer.initialize(fps=2.0, rotations_per_min=0.0, chunk_size=4)
        drain(streamer, side)
        return
    n = orders["film"]["n"]
    data_id = streamer.initialize(fps=n / 2, rotations_per_min=0.0, chunk_size=n)  # at least 2 s per chunk
    write_line(side, "stream", data_id)
    push_all(streamer, data_id, orders, side)
    if orders["end"] == "finalize":
        write_line(side, "report", json.dumps(streamer.finalize(data_id, 60.0)))
    elif orders["end"] == "hold":
        write_line(side, "held", 0)
        while True:
            time.sleep(0.1)


if __name__ == "__main__":
    main()
