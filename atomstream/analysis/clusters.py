"""Online k-means of pictures: ids that last, and a distance as uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.arrays import F32

MAX_CLUSTERS = 12
NEW_DISTANCE = 0.2
"""Distance (of unit pictures) at which a picture begins a cluster of its own: a correlation of 0.98."""

MEMORY = 200.0


@dataclass(slots=True)
class Clusters:
    """Cluster centres, one row each; a centre's row number is its id for as long as the stream lives."""

    centres: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    counts: list[float] = field(default_factory=list)
    variances: list[float] = field(default_factory=list)

    def assign(self, vector: F32) -> tuple[int, float]:
        """Assign a unit picture (P,); return the cluster's id and the RMS distance of its members from the centre."""
        if self.centres.shape[1:] != vector.shape:
            self.centres, self.counts, self.variances = vector[None][:0], [], []
        squared = ((self.centres - vector) ** 2).sum(axis=1)
        nearest = int(np.argmin(squared)) if len(squared) else -1
        limit = NEW_DISTANCE
        if nearest < 0 or (squared[nearest] > limit**2 and len(squared) < MAX_CLUSTERS):
            self.centres = np.concatenate([self.centres, vector[None]])
            self.counts.append(1.0)
            self.variances.append(0.0)
            return len(self.counts) - 1, 0.0
        self.counts[nearest] = min(self.counts[nearest] + 1.0, MEMORY)
        share = 1.0 / self.counts[nearest]
        self.variances[nearest] += share * (float(squared[nearest]) - self.variances[nearest])
        self.centres[nearest] += np.float32(share) * (vector - self.centres[nearest])
        return nearest, math.sqrt(max(0.0, self.variances[nearest]))
