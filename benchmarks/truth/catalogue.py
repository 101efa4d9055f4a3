"""Catalogue of the simulated films by name: ``film("stops", 4)``."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from benchmarks.truth import kinds_change, kinds_growth, kinds_pulsed, kinds_still
from benchmarks.truth.simulator import Film

KINDS: dict[str, Callable[[np.random.Generator], Film]] = {
    kind.__name__: kind
    for module in (kinds_growth, kinds_change, kinds_pulsed, kinds_still)
    for kind in module.KINDS
}


def film(kind: str, seed: int) -> Film:
    """Return the film of a kind and a seed: always the same for the same arguments."""
    made = KINDS[kind](np.random.default_rng((seed, zlib.crc32(kind.encode()))))
    made.kind, made.seed = kind, seed
    return made
