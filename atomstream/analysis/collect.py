"""Gathers the per-frame columns of one call, and the values as they stand at its end, into a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atomstream.analysis.arrays import F64
from atomstream.analysis.batch import FRAME_COLUMNS, Batch
from atomstream.analysis.fast import Features
from atomstream.analysis.results import current_values
from atomstream.records import Frames

if TYPE_CHECKING:
    from atomstream.analysis.stage import Scene, Stage


class Collector:
    """One call's results. Columns are filled as pieces pass; held values with what was known at that time."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._pieces: list[dict[str, F64]] = []

    def nothing(self, times: F64, frames: Frames, why: str) -> None:
        """Add frames in which nothing could be measured."""
        self._stage.why = why
        whole = (frames >= self._stage.saturation).mean(axis=(1, 2))
        self._pieces.append(
            {"time_seconds": times, "saturated_fraction": np.asarray(whole, dtype=np.float64)}
        )

    def frames(self, features: Features, scene: Scene) -> None:
        """Add a piece's frames."""
        n, surface = len(features), scene.surface
        specular = features.boxes["specular"]
        piece = {name: np.full(n, value) for name, value in self._stage.held.items()}
        piece |= {
            "time_seconds": features.times,
            "specular_intensity": specular.intensity,
            "specular_background": specular.background,
            "saturated_fraction": specular.saturated,
            "specular_x": np.full(n, scene.spot.x),
            "specular_y": np.full(n, scene.spot.y),
        }
        if scene.rotation is None:
            for name, order in (("first_order_intensity", 1.0), ("half_order_intensity", 0.5)):
                left, right = surface.pair(features.profiles, order)
                piece |= {name: 0.5 * (left + right), f"{name}_l": left, f"{name}_r": right}
        else:
            piece["azimuth_angle"] = scene.rotation.last_angles
        piece |= {f"region:{k}": trace.intensity for k, trace in features.boxes.items() if k != "specular"}
        self._pieces.append(piece)

    def renew(self) -> None:
        """Give the block's last frame the values that the block itself has just brought."""
        for name, value in self._stage.held.items():
            column = self._pieces[-1].setdefault(name, np.full(len(self._pieces[-1]["time_seconds"]), np.nan))
            column[-1] = value

    def batch(self) -> Batch:
        """Make the batch; takes the stage's fresh events."""
        stage = self._stage
        count = sum(len(p["time_seconds"]) for p in self._pieces)
        names = [*FRAME_COLUMNS, *sorted({k for p in self._pieces for k in p} - set(FRAME_COLUMNS))]
        columns = {name: self._column(name) for name in names}
        events, stage.fresh = tuple(stage.fresh), []
        scene = stage.scene
        return Batch(
            start=stage.next_index - sum(map(len, stage.waiting)) - count,
            count=count,
            frames=columns,
            values=current_values(stage),
            events=events,
            segments=stage.segments,
            views=scene.rotation.views() if scene and scene.rotation else (),
            profile=scene.surface.smooth if scene else np.empty(0),
            lines=dict(stage.line_profiles),
        )

    def _column(self, name: str) -> F64:
        parts = [p[name] if name in p else np.full(len(p["time_seconds"]), np.nan) for p in self._pieces]
        return np.concatenate(parts) if parts else np.empty(0)
