"""A program of a user of the hosted service's client: signals by push, push_multi and run.

It runs with the client's own Python and is never imported by a test. It writes one JSON line.
"""

from __future__ import annotations

import json
import sys

T = 1_735_689_600.0


def main() -> None:
    """``peer_signals.py URL KEY SAMPLE``."""
    url, key, sample = sys.argv[1:4]
    from atomscale.streaming import TimeseriesStreamer

    streamer = TimeseriesStreamer(api_key=key, endpoint=url, points_per_chunk=3)
    data_id = streamer.initialize(stream_name="Chamber log", physical_sample=sample, tags=["night"])
    streamer.push(data_id, 0, "temperature", [T, T + 1, T + 2], [500.0, 501.0, float("nan")], units="C")
    streamer.push_multi(
        data_id,
        1,
        {
            "temperature": {"timestamps": [T + 3], "values": [503.0], "units": "C"},
            "pressure": {"timestamps": [T + 3], "values": [1e-9]},
        },
    )
    streamer.run(data_id, "shutter", iter([([T + k], [float(k % 2)]) for k in range(4)]))
    streamer.finalize(data_id)
    sys.stdout.write(json.dumps({"data_id": data_id}) + "\n")


if __name__ == "__main__":
    main()
