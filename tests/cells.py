"""Parameters of a test over a grid: the normal run has some of the cells, the campaign all others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest


def grid(
    cells: Iterable[Any], always: Collection[Any], name: Callable[[Any], str] | None = None
) -> list[Any]:
    """Return the parameters of all cells; those that are not in ``always`` are marked ``campaign``.

    A cell is one value, or a tuple of the values of several arguments. ``name`` gives the name of a cell.
    """
    return [
        pytest.param(
            *(cell if isinstance(cell, tuple) else (cell,)),
            id=name(cell) if name else None,
            marks=() if cell in always else pytest.mark.campaign,
        )
        for cell in cells
    ]
