"""Marks for tests that show an operating-system optimisation: skipped where ``ATOMSTREAM_PLAIN_OS`` turned it off."""

from __future__ import annotations

import pytest

from atomstream.system import tuning


def needs(*optimisations: tuning.Optimisation) -> pytest.MarkDecorator:
    """Return a mark that skips the test if one of these optimisations is off."""
    off = [name for name in optimisations if not tuning.enabled(name)]
    return pytest.mark.skipif(bool(off), reason=f"ATOMSTREAM_PLAIN_OS turned off: {', '.join(off)}")
