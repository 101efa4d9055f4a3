"""Which streams the rules choose, in which order, and which frames of them stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.server.archive.metadata import Thinning
from atomstream.server.retention.plan import DAY_S, Action, StreamFacts, frames_to_keep, make_plan
from atomstream.server.retention.retention import seconds_until_due
from atomstream.server.retention_rules import RetentionSettings

MONTH = {"whole_days": 30, "keep_every": 10, "delete_days": 365}


def stream(name: str, days: float, gb: float = 1.0, **more: Any) -> StreamFacts:
    """A stream of this age and size."""
    fields: dict[str, Any] = {"project": None, "n_frames": 1000, **more}
    return StreamFacts(data_id=name, name=name, age_s=days * DAY_S, nbytes=round(gb * 1e9), **fields)


def thinned(every: int, **more: Any) -> Thinning:
    """A thinning that was done before."""
    return Thinning(every=every, around_s=2.0, since="2026", complete=True, planned=True, **more)


def planned(streams: list[StreamFacts], **table: Any) -> list[tuple[str, int]]:
    """(name, every) of each action."""
    plan = make_plan(streams, RetentionSettings.parse(table))
    return [(action.data_id, action.every) for action in plan.actions]


def test_by_age() -> None:
    """All frames are kept until whole_days, then one in keep_every, after delete_days none. The oldest streams come
    first.
    """
    streams = [stream("new", 29), stream("old", 31), stream("ancient", 400)]
    assert planned(streams, rules=[MONTH]) == [("ancient", 0), ("old", 10)]
    assert planned(streams) == []


def test_the_first_rule_that_fits_counts() -> None:
    """The first rule for the project and size counts: one that keeps everything protects its streams from later
    rules."""
    streams = [
        stream("small", 40, 0.5, project="MBE"),
        stream("large", 40, 5.0, project="MBE"),
        stream("other", 40, 5.0, project="PLD"),
        stream("none", 40, 5.0),
    ]
    rules = [
        {"project": "PLD", "delete_days": 10_000},
        {"project": "MBE", "larger_than_gb": 2, "whole_days": 7, "keep_every": 100},
        {"larger_than_gb": 1, "whole_days": 7, "keep_every": 2},
    ]
    assert planned(streams, rules=rules) == [("large", 100), ("none", 2)]


def test_what_is_done_is_not_done_again() -> None:
    """A thinned stream waits for a coarser rule that fits its frames; an interrupted one is continued as planned."""
    cases = [(thinned(10), 10), (thinned(10), 5), (thinned(10), 15), (thinned(0), 10)]
    for before, every in cases:
        rule = {"whole_days": 1, "keep_every": every}
        assert planned([stream("a", 9, thinning=before)], rules=[rule]) == []
    finer = [{"whole_days": 1, "keep_every": 20}]
    assert planned([stream("a", 9, thinning=thinned(10))], rules=finer) == [("a", 20)]
    assert planned([stream("a", 400, thinning=thinned(10))], rules=[MONTH]) == [("a", 0)]
    half = Thinning(every=7, around_s=1.0, since="2026", planned=True)
    assert planned([stream("a", 400, thinning=half)], rules=[MONTH]) == [("a", 7)]
    assert planned([stream("a", 0.1, thinning=half)]) == [("a", 7)]


def test_a_stream_in_use_is_left_alone() -> None:
    """A stream in use is listed with the reason; the others are changed."""
    plan = make_plan(
        [stream("a", 40, busy="it is being read"), stream("b", 40)],
        RetentionSettings.parse({"rules": [MONTH]}),
    )
    assert plan.skipped == (("a", "it is being read"),)
    assert [action.data_id for action in plan.actions] == ["b"]


def test_a_quota_thins_first_and_then_empties_the_oldest() -> None:
    """No more than needed; nothing younger than spare_days; a quota that can't be reached is reported."""
    streams = [stream(str(days), days, 10.0) for days in (50, 40, 30, 20, 0.5)]
    rule = {"keep_every": 10}
    assert planned(streams, rules=[{**rule, "quota_gb": 50}]) == []
    assert planned(streams, rules=[{**rule, "quota_gb": 40}]) == [("50", 10), ("40", 10)]
    assert planned(streams, rules=[{**rule, "quota_gb": 13}]) == [
        ("50", 0),
        ("40", 10),
        ("30", 10),
        ("20", 10),
    ]
    assert planned(streams, quota_gb=25) == [("50", 0), ("40", 0), ("30", 0)]
    plan = make_plan(streams, RetentionSettings.parse({"quota_gb": 5}))
    assert [action.every for action in plan.actions] == [0, 0, 0, 0]
    (over,) = plan.over
    assert over.startswith("The server has 10.0 GB of frames, of 5")


def test_quotas_of_projects_are_their_own() -> None:
    """One project's data do not push out another's; the quota of the server counts all."""
    streams = [stream("a", 50, 10.0, project="A"), stream("b", 40, 10.0, project="B"), stream("c", 30, 10.0)]
    rules = [{"project": "A", "quota_gb": 5}, {"project": "B", "quota_gb": 20}]
    assert planned(streams, rules=rules) == [("a", 0)]
    assert planned(streams, rules=rules, quota_gb=10) == [("a", 0), ("b", 0)]


def test_the_estimate() -> None:
    """Of a stream that was thinned to one frame in 10, one in 20 frees half."""
    settings = RetentionSettings.parse({"rules": [{"whole_days": 1, "keep_every": 20}]})
    (action,) = make_plan([stream("a", 9, 4.0, thinning=thinned(10))], settings).actions
    assert isinstance(action, Action)
    assert action.freed_bytes == 2_000_000_000


def test_the_frames_that_stay() -> None:
    """One frame in ``every`` is kept by its number, and all near an event; frames without a time only by their
    number."""
    times = np.array([10.0, 10.1, np.nan, 10.3, 10.4, 10.5, 10.6, 10.7])
    events = np.array([-5.0, 10.34, 99.0])
    kept = frames_to_keep(9, times, 5, events, 0.1)
    assert np.flatnonzero(kept).tolist() == [1, 3, 4, 6]
    assert np.flatnonzero(frames_to_keep(9, times, 5, np.array([]), 0.1)).tolist() == [1, 6]
    assert not frames_to_keep(9, times, 0, events, 100.0).any()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"rules": [{"whole_days": 5}]}, "rule 1: whole_days and keep_every"),
        ({"rules": [MONTH, {}]}, "rule 2: it does nothing"),
        ({"rules": [{"whole_days": 5, "keep_every": 1}]}, "keep_every"),
        ({"rules": [{"whole_days": 5, "keep_every": 2, "delete_days": 5}]}, "delete_days must be more"),
        ({"rules": [{"whole_day": 5}]}, "whole_day"),
        ({"rules": [{"delete_days": -1}]}, "delete_days"),
        ({"rules": [{"delete_days": "1"}]}, "delete_days"),
        ({"rules": {"delete_days": 1}}, "rules"),
        ({"daily_at": "25:00"}, "daily_at"),
        ({"quota": 3}, "quota"),
    ],
)
def test_wrong_rules(table: dict[str, Any], words: str) -> None:
    """The error names the table, the rule and the setting."""
    with pytest.raises(ConfigError, match=words):
        RetentionSettings.parse(table)


def test_once_a_day() -> None:
    """The run is due at its time of the day; one that was missed is due at once."""
    import datetime

    at = datetime.datetime(2026, 11, 30, 12, 0).timestamp()
    hour = 3600.0
    assert seconds_until_due(at, None, "03:00") == 0.0
    assert seconds_until_due(at, at - 10 * hour, "03:00") == 0.0
    assert seconds_until_due(at, at - 8 * hour, "03:00") == 15 * hour
    assert seconds_until_due(at, at - 8 * hour, "13:30") == 1.5 * hour
