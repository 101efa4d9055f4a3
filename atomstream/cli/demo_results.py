"""The demo's live analysis, told beside what the simulator made: rate, layers, spacing."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Final, Self

from atomstream.cli.console import Console
from atomstream.errors import AtomstreamError
from atomstream.sources import Simulator
from atomstream.streaming import RHEEDStreamer

SAY_S: Final = 3.0
LAST_S: Final = 20.0
"""How long the end of the analysis is waited for, once the stream has ended."""


class DemoResults:
    """Follows the stream's results in a thread of its own for as long as the block lasts, then to their end."""

    def __init__(self, console: Console, streamer: RHEEDStreamer, data_id: str, simulator: Simulator) -> None:
        self._console = console
        self._streamer = streamer
        self._data_id = data_id
        self._simulator = simulator
        self._thread = threading.Thread(target=self._follow, name="atomstream-demo-results", daemon=True)
        self._newest: Any = None
        self._frames = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(LAST_S if error is None else 0.0)

    def rows(self) -> list[tuple[str, str]]:
        """What was found, for the report; each beside the simulator's truth."""
        if self._newest is None:
            return [("Analysis", "no result came in time")]
        truth = self._truth()
        return [(name, f"{found} (simulated: {truth[name]})") for name, found in self._found().items()]

    def _follow(self) -> None:
        said_at = time.monotonic()
        try:
            for batch in self._streamer.results(self._data_id):
                self._newest = batch
                self._frames = max(self._frames, batch.start + batch.count)
                if time.monotonic() > said_at + SAY_S and batch.growth_rate_ml_s is not None:
                    said_at = time.monotonic()
                    self._console.say(self._line())
        except AtomstreamError as error:
            self._console.say(f"atomstream: no more results: {error}")

    def _line(self) -> str:
        truth = self._truth()
        parts = [f"{name.lower()} {found} [{truth[name]}]" for name, found in self._found().items()]
        return f"  analysed {self._frames} frames: " + ", ".join(parts)

    def _found(self) -> dict[str, str]:
        values = {
            "Growth rate": "growth_rate_ml_s",
            "Layers": "layers_grown",
            "Streak spacing": "lattice_spacing",
        }
        return {name: _short(self._newest.value(key)) for name, key in values.items()}

    def _truth(self) -> dict[str, str]:
        truth = self._simulator.truth([max(0, self._frames - 1)])
        return {
            "Growth rate": f"{float(truth.rate_ml_s[0]):.4g} ML/s",
            "Layers": f"{float(truth.layers[0]):.2f}",
            "Streak spacing": f"{float(truth.spacing_px[0]):.2f} px",
        }


def _short(measured: Any) -> str:
    """A result without its caveats, which the dashboard tells."""
    if measured.value is None:
        return f"undetermined: {measured.why}"
    return f"{measured.value:.4g} ± {measured.sigma or 0.0:.2g} {measured.unit}"
