"""Simulated RHEED frames with known true values, for tests, the demo and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError

from .sim_camera import Camera
from .sim_growth import Truth, truth_at
from .sim_pattern import Pattern
from .sim_spec import GrowthSpec


class Simulator:
    """Makes the frames of the growth that ``spec`` describes, with their true values.

    Frame k is exposed at k / fps seconds. It depends only on the spec (with its seed) and on k, so the frames do not
    depend on range or chunk size. Not thread-safe.
    """

    def __init__(self, spec: GrowthSpec | None = None) -> None:
        if spec is not None and not isinstance(spec, GrowthSpec):
            raise TypeError(f"spec must be a GrowthSpec, not {type(spec).__name__}")
        self.spec = spec or GrowthSpec()
        self._pattern = Pattern(self.spec)
        self._camera = Camera(self.spec)
        self._signal = np.empty((self.spec.height, self.spec.width), dtype=np.float32)

    def truth(self, frames: npt.ArrayLike) -> Truth:
        """Return the true values of the frames with these numbers (an integer or an array)."""
        index = np.atleast_1d(np.asarray(frames, dtype=np.int64))
        return truth_at(self.spec, index / self.spec.fps)

    def frames(
        self, start: int, count: int, out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Return frames ``start`` .. ``start + count - 1`` as uint8 (count, H, W), in ``out`` if given.

        Raises :class:`ConfigError` if ``out`` is not C-contiguous uint8 of that shape.
        """
        shape = (count, self.spec.height, self.spec.width)
        if start < 0 or count < 0:
            raise ConfigError(f"frames are counted from 0; got start {start}, count {count}")
        if out is None:
            out = np.empty(shape, dtype=np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ConfigError(f"out must be C-contiguous uint8 of shape {shape}; got {out.dtype} {out.shape}")
        truth = self.truth(np.arange(start, start + count))
        for i in range(count):
            self._pattern.light(truth, i, self._signal)
            self._camera.expose(self._signal, start + i, out[i])
        return out

    def chunks(self, chunk_size: int, n_frames: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the first ``n_frames`` frames in new arrays of ``chunk_size`` frames; the last may be shorter."""
        if chunk_size < 1:
            raise ConfigError(f"chunk_size is {chunk_size}; it must be at least 1")
        for start in range(0, n_frames, chunk_size):
            yield self.frames(start, min(chunk_size, n_frames - start))
