"""The version, in one place that every layer may see."""

from __future__ import annotations

__version__ = "0.2.0"
