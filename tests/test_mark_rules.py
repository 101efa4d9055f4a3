"""Rules that set marks where a signal crosses a threshold."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.mark_rules import MarkRule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('shutter>0.5 -> mark "shutter open"', MarkRule("shutter", True, 0.5, "shutter open")),
        ("shutter > .5 -> shutter open", MarkRule("shutter", True, 0.5, "shutter open")),
        ('"T > set" < -1e-3 -> growth "too cold"', MarkRule("T > set", False, -1e-3, "too cold", "growth")),
        ("Ga flux<1E-8->closed", MarkRule("Ga flux", False, 1e-8, "closed")),
        ("p>1 -> mark leak", MarkRule("p", True, 1.0, "leak")),
    ],
)
def test_rules_are_read(text: str, rule: MarkRule) -> None:
    """A rule has a channel, sign, threshold, kind and label, with or without quotes and blanks."""
    assert MarkRule.parse(text) == rule


@pytest.mark.parametrize(
    "text", ["", "shutter", "shutter>", "shutter>x -> y", "shutter>1", ">1 -> a", "a=1 -> b"]
)
def test_an_invalid_rule_is_named(text: str) -> None:
    """The error shows an example."""
    with pytest.raises(ConfigError, match=r'such as shutter>0\.5 -> mark "shutter open"'):
        MarkRule.parse(text)


@pytest.mark.parametrize(
    "text", [" " * 20_000, "a" * 20_000, "a " * 200 + ">", "a>1->" + "b " * 200 + '"', "a>" + "1" * 400]
)
def test_an_invalid_rule_takes_no_time(text: str) -> None:
    """The time does not grow with a power of the length: 800 blanks took 15 s, in the server's loop."""
    with pytest.raises(ConfigError, match="rule"):
        MarkRule.parse(text)


def test_crossings() -> None:
    """Only a change of the condition is a crossing; NaN and the first value are not."""
    times = np.arange(7.0)
    values = np.array([1.0, 0.0, np.nan, 1.0, 1.0, 0.5, 2.0])
    assert list(MarkRule("c", True, 0.5, "x").crossings(times, values)) == [3.0, 6.0]
    assert list(MarkRule("c", False, 0.5, "x").crossings(times, values)) == [1.0]
    assert list(MarkRule("c", True, 0.5, "x").crossings(times[:0], values[:0])) == []
