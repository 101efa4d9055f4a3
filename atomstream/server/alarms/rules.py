"""Rules of alarms, and whether the newest results of a stream meet them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from atomstream.errors import ConfigError
from atomstream.server.live.messages import MeasurementRecord

MAX_RULES: Final = 32
"""Rules of one stream."""
LONGEST_STALE_S: Final = 86400.0
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class AlarmRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule that raises an alarm about one number of a stream. ``name`` is that of a value, such as
    ``growth_rate_ml_s``.

    The alarm is raised if the value is below ``low`` or above ``high`` (in its unit), if it is ``undetermined``, or if
    the stream has no new results for ``stale_s``.
    """

    name: Name
    low: float | None = None
    high: float | None = None
    undetermined: bool = False
    stale_s: Annotated[float, msgspec.Meta(ge=1.0, le=LONGEST_STALE_S)] | None = None


def check_rules(rules: list[AlarmRule]) -> list[AlarmRule]:
    """The rules. Raises ConfigError for one that can never be met, and for two of the same number."""
    for rule in rules:
        if not _NAME.fullmatch(rule.name):  # it is written into the log and into messages
            raise ConfigError(
                f"alarms: {rule.name!r} is no name of a number; it has letters, digits and _ . : - only"
            )
        if not (rule.undetermined or any(one is not None for one in (rule.low, rule.high, rule.stale_s))):
            raise ConfigError(
                f"alarms: the rule for {rule.name} has no condition; give low, high, undetermined or stale_s"
            )
        if rule.low is not None and rule.high is not None and rule.low >= rule.high:
            raise ConfigError(
                f"alarms: the band of {rule.name} ends at {rule.high:g} and begins at {rule.low:g}"
            )
    if len({rule.name for rule in rules}) != len(rules):
        raise ConfigError("alarms: two rules are for the same number; put their conditions into one")
    return rules


def why_met(rule: AlarmRule, values: Mapping[str, MeasurementRecord], age_s: float) -> str:
    """Why the rule is met, as the end of a sentence about the number; "" if it is not.

    ``age_s`` is the age of the newest results in s. A number that the stream does not have (yet) can only meet
    ``stale_s``.
    """
    if rule.stale_s is not None and age_s > rule.stale_s:
        return f"is stale: no new results for {math.floor(age_s)} s"
    found = values.get(rule.name)
    if found is None:
        return ""
    if found.value is None:
        return f"is undetermined: {found.why or 'no reason is known'}" if rule.undetermined else ""
    number = f"{found.value:.4g} {found.unit}".rstrip()
    if rule.low is not None and found.value < rule.low:
        return f"is {number}, below {rule.low:g}"
    if rule.high is not None and found.value > rule.high:
        return f"is {number}, above {rule.high:g}"
    return ""
