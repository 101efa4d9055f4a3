"""Incremental PCA: comparison with a full decomposition, and coordinates in changing bases."""

from __future__ import annotations

import numpy as np

from atomstream.analysis.change import N_COMPONENTS, Components


def _pictures(count: int, rank: int, noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = np.geomspace(1.0, 0.2, rank)
    pictures = (rng.normal(size=(count, rank)) * scale) @ np.linalg.qr(rng.normal(size=(300, rank)))[0].T
    return (3.0 + pictures + noise * rng.normal(size=pictures.shape)).astype(np.float32)


def _learned(pictures: np.ndarray, memory: int) -> Components:
    components = Components(memory)
    for picture in pictures:
        components.update(picture)
    return components


def test_incremental_equals_full_decomposition() -> None:
    """With a long memory, mean and leading components equal those of one decomposition of all pictures."""
    pictures = _pictures(60, 4, 0.001)
    components = _learned(pictures, 10**6)
    np.testing.assert_allclose(components.mean, pictures.mean(axis=0), atol=1e-3)
    together = np.linalg.svd(pictures - pictures.mean(axis=0), full_matrices=False)[2][:4]
    np.testing.assert_allclose(np.linalg.svd(components.basis[:4] @ together.T)[1], 1.0, atol=1e-3)
    np.testing.assert_allclose(components.basis @ components.basis.T, np.eye(N_COMPONENTS), atol=1e-4)


def test_old_coordinates_hold_in_the_new_basis() -> None:
    """The coordinates of a past picture still describe it after mean and components have changed."""
    pictures = _pictures(50, 5, 0.0)
    components = _learned(pictures, 20)
    again = components.coordinates[:, : len(components.basis)] @ components.basis + components.mean
    np.testing.assert_allclose(again, pictures[-20:], atol=1e-3)


def test_a_new_direction_is_the_residual() -> None:
    """A similar picture has no residual; a new direction has its squared size as residual."""
    pictures = _pictures(60, 4, 0.0)
    components = _learned(pictures[:50], 40)
    assert max(components.project(picture)[1] for picture in pictures[50:]) < 1e-6
    new = np.zeros(300, np.float32)
    new[7] = 0.5
    assert 0.2 < components.project(pictures[50] + new)[1] < 0.25


def test_old_pictures_lose_their_weight() -> None:
    """Pictures of another kind replace mean and components within a few memory lengths."""
    old, new = _pictures(50, 4, 0.001, seed=1), 1.0 + _pictures(120, 4, 0.001, seed=2)
    components = _learned(np.concatenate([old, new]), 15)
    np.testing.assert_allclose(components.mean, new[-15:].mean(axis=0), atol=0.2)
    assert components.project(new[-1])[1] < 1e-3
