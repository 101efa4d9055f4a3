"""Where frames come from: the simulator, files, and pacing. Nothing heavy is imported until it is used."""

from __future__ import annotations

from .sim_growth import Truth
from .sim_spec import GrowthSpec, no_signal_specs
from .simulator import Simulator

__all__ = ["GrowthSpec", "Simulator", "Truth", "no_signal_specs"]
