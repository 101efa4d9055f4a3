"""Collects the results of one call into a batch: per-frame columns and the current values."""

from __future__ import annotations

import numpy as np

from atomstream.analysis.regions import FrameFeatures
from atomstream.analysis.scalars import current_values
from atomstream.analysis.stream_state import AnalysisState, PatternTrackers
from atomstream.records import Frames
from atomstream.results import F64, FRAME_COLUMNS, Batch


class BatchBuilder:
    """Builds the batch of one call: first the pieces are added in order, then :meth:`build` makes the batch.

    Values that are fitted (rate, spacing) are repeated for each frame until the next slow block changes them.
    """

    def __init__(self, state: AnalysisState) -> None:
        self._state = state
        self._pieces: list[dict[str, F64]] = []

    def add_unmeasured(self, times: F64, frames: Frames, reason: str) -> None:
        """Add frames (N, H, W) without a pattern: all columns but time and saturation are NaN, for ``reason``."""
        self._state.no_pattern_reason = reason
        saturated = (frames >= self._state.clip_level).mean(axis=(1, 2))
        self._pieces.append(
            {"time_seconds": times, "saturated_fraction": np.asarray(saturated, dtype=np.float64)}
        )

    def add_frames(self, features: FrameFeatures, trackers: PatternTrackers) -> None:
        """Add the features of a piece's frames."""
        n, surface = len(features), trackers.surface
        specular = features.boxes["specular"]
        piece = {name: np.full(n, value) for name, value in self._state.held_values.items()}
        piece |= {
            "time_seconds": features.times,
            "specular_intensity": specular.intensity,
            "specular_background": specular.background,
            "saturated_fraction": specular.saturated,
            "specular_x": specular.x,
            "specular_y": specular.y,
        }
        if trackers.rotation is None:
            names = ("first_order_intensity", "half_order_intensity")
            for name, (left, right) in zip(
                names, surface.order_pairs(features.profiles, (1.0, 0.5)), strict=True
            ):
                piece |= {name: 0.5 * (left + right), f"{name}_l": left, f"{name}_r": right}
        else:
            piece["azimuth_angle"] = trackers.rotation.last_angles
        piece |= {f"region:{k}": trace.intensity for k, trace in features.boxes.items() if k != "specular"}
        self._pieces.append(piece)

    def update_last_frame(self) -> None:
        """Write the values that were fitted at the end of a block to the block's last frame."""
        for name, value in self._state.held_values.items():
            column = self._pieces[-1].setdefault(name, np.full(len(self._pieces[-1]["time_seconds"]), np.nan))
            column[-1] = value

    def build(self) -> Batch:
        """Make the batch. The state's new events move into it."""
        state = self._state
        count = sum(len(p["time_seconds"]) for p in self._pieces)
        names = [*FRAME_COLUMNS, *sorted({k for p in self._pieces for k in p} - set(FRAME_COLUMNS))]
        columns = {name: self._column(name) for name in names}
        events, state.new_events = tuple(state.new_events), []
        trackers = state.trackers
        return Batch(
            start=state.next_index - sum(map(len, state.pending_frames)) - count,
            count=count,
            frames=columns,
            values=current_values(state),
            events=events,
            segments=state.segments,
            views=trackers.rotation.views() if trackers and trackers.rotation else (),
            profile=trackers.surface.smoothed_profile if trackers else np.empty(0),
            lines=dict(state.line_profiles),
        )

    def _column(self, name: str) -> F64:
        parts = [p[name] if name in p else np.full(len(p["time_seconds"]), np.nan) for p in self._pieces]
        return np.concatenate(parts) if parts else np.empty(0)
