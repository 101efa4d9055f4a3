"""Values that are stored as other numbers: the factor and the offset that Zarr, NetCDF and NeXus state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def stated_scaling(attributes: Mapping[str, Any]) -> str:
    """Return what the attributes of the CF conventions state, such as "scale_factor 0.5"; empty if they change nothing.

    A value is the stored number times ``scale_factor``, plus ``add_offset``.
    """
    return scaling_text(
        scale_factor=(attributes.get("scale_factor"), 1.0), add_offset=(attributes.get("add_offset"), 0.0)
    )


def scaling_text(**stated: tuple[Any, float]) -> str:
    """Return the stated values that differ from those without an effect, which are given beside them."""
    found = []
    for name, (value, neutral) in stated.items():
        numbers = np.atleast_1d(np.asarray(neutral if value is None else value))
        if numbers.size != 1 or numbers.dtype.kind not in "iuf" or float(numbers[0]) != neutral:
            found.append(f"{name} {numbers[0] if numbers.size == 1 else numbers.shape}")
    return ", ".join(found)
