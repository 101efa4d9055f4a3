"""Buckets of long traces keep all extremes and all gaps."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.server.archive.downsampling import bucketed, joined, merged


def noisy(n: int, seed: int = 3) -> np.ndarray:
    """A noisy trace with gaps."""
    rng = np.random.default_rng(seed)
    values = rng.normal(100.0, 20.0, n)
    values[rng.random(n) < 0.3] = np.nan
    return values


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_extremes_are_kept(n: int, size: int) -> None:
    """Each bucket has the minimum, maximum and mean of its own values."""
    values = noisy(n)
    got = bucketed(values, size)
    for k in range(-(-n // size)):
        part = values[k * size : (k + 1) * size]
        part = part[~np.isnan(part)]
        if len(part) == 0:
            assert np.isnan([got.low[k], got.high[k], got.mean[k]]).all()
        else:
            assert (got.low[k], got.high[k]) == (part.min(), part.max())
            assert got.mean[k] == pytest.approx(part.mean())


@pytest.mark.parametrize("times", [1, 3, 16])
def test_merging_is_bucketing(times: int) -> None:
    """Merged buckets equal buckets of the values, so cached ones can be used."""
    values = noisy(1000)
    fine, coarse = merged(bucketed(values, 8), times), bucketed(values, 8 * times)
    for name in ("low", "high", "mean"):
        np.testing.assert_allclose(getattr(fine, name), getattr(coarse, name))


def test_joining() -> None:
    """The joined buckets of two halves equal the buckets of the whole; an empty list gives no buckets."""
    values = noisy(640)
    parts = joined([bucketed(values[:320], 64), bucketed(values[320:], 64)])
    np.testing.assert_array_equal(parts.low, bucketed(values, 64).low)
    assert len(joined([]).mean) == 0
