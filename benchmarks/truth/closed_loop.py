"""The control loop of ``examples/stop_after_layers.py`` on composites: does it close the shutter at the right time?

The film is a real frame whose specular spot is scaled by one real layer of a growth by pulsed laser deposition, crest
to crest, again and again. It is played eight times as fast as it was recorded. Where growth ends by itself before the
requested number of layers, the loop must leave the shutter open.

    python -m benchmarks.truth.closed_loop
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from atomstream.testing import running_server
from benchmarks.truth.composites import LONG, CompositeMaker, real_frames, real_trace

FPS = 30.0
SPEED = 8.0
CREST_S = 8.8
NEXT_CREST_S = 20.4
"""Times of two successive maxima of the real trace, in s after the start of its growth at 3 pulses per second."""

GROWTH_BEGAN_S = 74.2
"""Time of that start in the trace, in s."""

CASES = (
    ("real frame 3", 3, 4.0, math.inf),
    ("real frame 20", 20, 4.0, math.inf),
    ("ends at 2.6 layers", 3, 4.0, 2.6),
)
"""Name, number of the real frame, layers requested, layers after which growth ends by itself."""


def example() -> Any:
    """Return the example as a module; it is not part of a package."""
    path = Path(__file__).resolve().parents[2] / "examples" / "stop_after_layers.py"
    spec = importlib.util.spec_from_file_location("stop_after_layers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def real_layer() -> np.ndarray:
    """Return the intensity of one real layer, crest to crest, 1 at its crests; a linear change is removed."""
    t, y = real_trace(LONG)
    begin, end = (np.searchsorted(t, GROWTH_BEGAN_S + at) for at in (CREST_S, NEXT_CREST_S))
    layer = y[begin:end]
    ends = layer[:15].mean(), layer[-15:].mean()
    return np.asarray(layer / np.linspace(*ends, len(layer)))


RATE_ML_S = SPEED / (NEXT_CREST_S - CREST_S)


def intensity(layers_end: float, seconds: float) -> np.ndarray:
    """Return the intensity of each frame, if growth ends after ``layers_end`` layers; the spot recovers after it."""
    fine = np.arange(round(seconds * FPS) * 10) / (10.0 * FPS)
    layers, layer = np.minimum(RATE_ML_S * fine, layers_end), real_layer()
    y = np.interp(layers % 1.0, np.arange(len(layer)) / len(layer), layer)
    since = np.clip(fine - layers_end / RATE_ML_S, 0.0, None)
    y += 0.6 * (1.0 - y) * (1.0 - np.exp(-since * RATE_ML_S / 1.5))
    return np.asarray(y.reshape(-1, 10).mean(axis=1))  # a frame is exposed for its whole period


def chamber(picture: int, stops_after: float, seconds: float, seed: int = 0) -> Any:
    """Return a chamber of the example that grows a composite."""
    module = example()
    _, frame = real_frames()[picture % len(real_frames())]
    maker = CompositeMaker(frame, intensity(stops_after, seconds), seed, 8, 0.1, 0.01)

    class CompositeChamber(module.Chamber):  # type: ignore[misc, name-defined]  # the example is not a package
        def layers_at(self, time_s: float) -> float:
            return min(RATE_ML_S * time_s, stops_after)

        def frames(self, first: int, n: int) -> np.ndarray:
            if self.closed.is_set():
                maker.light = intensity(self.layers, seconds)
            return maker.frames(first, first + n)

    return CompositeChamber(FPS)


def run(picture: int, requested: float, stops_after: float, seconds: float) -> Any:
    """Run the control loop in real time against a local server; return the chamber after it."""
    made = chamber(picture, stops_after, seconds)
    with running_server() as server, contextlib.redirect_stdout(io.StringIO()):
        os.environ |= {"ATOMSTREAM_ENDPOINT": server.url, "ATOMSTREAM_API_KEY": server.api_key}
        asyncio.run(example().main(made, requested, seconds))
    return made


def main() -> None:
    """Print one row per case."""
    print("| film | layers requested | closed at |", "|---|---|---|", sep="\n")
    for name, picture, requested, stops_after in CASES:
        made = run(picture, requested, stops_after, 16.0)
        end = f"{made.layers:.2f}" if made.closed.is_set() else f"stayed open ({made.layers:.2f} layers grew)"
        print(f"| {name} | {requested:g} | {end} |", flush=True)


if __name__ == "__main__":
    main()
