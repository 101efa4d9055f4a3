"""Array types of the analysis, named once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.floating[Any]]
"""Floating-point arrays, double precision unless said otherwise."""

F32: TypeAlias = npt.NDArray[np.floating[Any]]
"""Floating-point arrays of pixels, single precision to spare memory bandwidth."""

Int: TypeAlias = npt.NDArray[np.integer[Any]]
Bool: TypeAlias = npt.NDArray[np.bool_]
