"""Rules that set a mark where a signal crosses a threshold: ``shutter>0.5 -> mark "shutter open"``.

Client and server use the same text. ``mark`` may be replaced by a kind of event (``growth``, ``pause``, ``laser``); a
mark of the kind ``shutter``, which ``mark`` means, begins a new segment of the growth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError
from atomstream.protocol import EVENT_KIND_PATTERN, MAX_LABEL_CHARS, MAX_NAME_CHARS

MAX_RULES: Final = 64
"""Most rules of one stream of signals."""
MAX_RULE_CHARS: Final = MAX_NAME_CHARS + MAX_LABEL_CHARS + 100
"""Length of a rule: its channel, its label, and what is between them."""

# Possessive (++, *+): a part that does not fit is never tried again in another length, so the time does not grow with
# the square of the text. Blanks at the end of a part are stripped afterwards.
_RULE: Final = re.compile(
    rf"""(?:"(?P<quoted>[^"]++)"\s*+|(?P<channel>[^<>"]++))(?P<sign>[<>])\s*+
    (?P<threshold>[-+]?(?:\d++\.?\d*+|\.\d++)(?:[eE][-+]?\d++)?)\s*+->\s*+
    (?:(?P<kind>{EVENT_KIND_PATTERN})\s++)?(?:"(?P<label>[^"]++)"|(?P<bare>[^"]++))""",
    re.VERBOSE,
)
_EXAMPLE: Final = 'shutter>0.5 -> mark "shutter open"'


@dataclass(frozen=True, slots=True)
class MarkRule:
    """A mark ``label`` of ``kind`` where ``channel`` becomes larger (or smaller) than ``threshold``."""

    channel: str
    above: bool
    threshold: float
    label: str
    kind: str = "shutter"

    @classmethod
    def parse(cls, text: str) -> MarkRule:
        """Read a rule; see the module's docstring.

        Raises:
            ConfigError: the text is not a rule.
        """
        bare = text.strip()
        if len(bare) > MAX_RULE_CHARS:
            raise ConfigError(
                f"The rule {bare[:100]!r}... has {len(bare)} characters; at most {MAX_RULE_CHARS} are allowed."
            )
        found = _RULE.fullmatch(bare)
        if found is None or not (found["quoted"] or found["channel"]).strip():
            raise ConfigError(
                f"{text[:200]!r} is not a rule for marks. A rule is CHANNEL>NUMBER -> LABEL, such as {_EXAMPLE}."
            )
        channel, label = found["quoted"] or found["channel"].strip(), found["label"] or found["bare"].strip()
        kind = found["kind"] or "mark"
        if found["bare"] and found["kind"]:  # two bare words are a label, such as: shutter open
            label, kind = (f"{kind} {label}", "mark") if kind != "mark" else (label, kind)
        if len(channel) > MAX_NAME_CHARS or len(label) > MAX_LABEL_CHARS:
            raise ConfigError(f"The rule {text[:200]!r} has a longer channel or label than a server accepts.")
        return cls(
            channel,
            found["sign"] == ">",
            float(found["threshold"]),
            label,
            "shutter" if kind == "mark" else kind,
        )

    def crossings(self, times: npt.NDArray[Any], values: npt.NDArray[Any]) -> Iterator[float]:
        """Yield the times at which the condition becomes true; ``times`` (N,) ascend.

        NaN in ``values`` (N,) is skipped. The first value is not a crossing: what was before it is not known.
        """
        known = np.isfinite(values)
        at, value = times[known], values[known]
        true = value > self.threshold if self.above else value < self.threshold
        yield from at[1:][true[1:] & ~true[:-1]].tolist()
