"""The text of a length of time."""

from __future__ import annotations


def clock_text(seconds: float, decimals: int = 1) -> str:
    """``0:04.2``, ``1:02.5`` or ``2:03:04.0``; ``-0:01.5`` for a time before the start.

    Rounded before it is divided: 59.96 s are ``1:00.0``.
    """
    units = round(abs(seconds) * 10**decimals)
    minutes, rest = divmod(units, 60 * 10**decimals)
    width = decimals + 3 if decimals else 2
    text = f"{rest / 10**decimals:0{width}.{decimals}f}"
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"
    return f"-{whole}" if seconds < 0 and units else whole
