"""The kind of a mark by its words, so that "Ga shutter open" begins a segment without a choice by the user.

Used by the recorder and by the server.
"""

from __future__ import annotations

import re
from typing import Final

_KINDS: Final = (
    ("laser", re.compile(r"\blaser\b", re.IGNORECASE)),
    ("shutter", re.compile(r"\b(shutter|valve|open|opened|close|closed)\b", re.IGNORECASE)),
    ("growth", re.compile(r"\bgrowth (start|starts|begin|begins|on)\b", re.IGNORECASE)),
    ("pause", re.compile(r"\b(growth (stop|stops|end|ends|off)|interrupt\w*|anneal\w*)\b", re.IGNORECASE)),
)


def kind_of(label: str) -> str:
    """Return the kind of a mark by the words of its label: ``shutter``, ``laser``, ``growth``, ``pause``, else
    ``note``."""
    return next((kind for kind, words in _KINDS if words.search(label)), "note")
