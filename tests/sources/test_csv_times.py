from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from atomstream.errors import ConfigError
from tests.sources.test_csv_log import T, read

BERLIN = ZoneInfo("Europe/Berlin")


def test_the_hour_that_summer_time_repeats(tmp_path: Path) -> None:
    """Local times from 02:00 to 03:00 come twice on that day; their order shows which hour is meant."""
    hours = ["01:30", "02:00", "02:30", "02:59", "02:00", "02:30", "03:00"]
    text = "time,A\n" + "".join(f"2025-10-26 {hour}:00,1\n" for hour in hours)
    _, rows = read(tmp_path, text, zone=BERLIN)
    first = datetime(2025, 10, 25, 23, 30, tzinfo=UTC).timestamp()
    assert [(time - first) / 60 for time in rows.times] == [0, 30, 60, 89, 90, 120, 150]
    _, rows = read(tmp_path, "time,A\n2025-03-30 01:59:00,1\n2025-03-30 03:00:00,1\n", zone=BERLIN)
    assert rows.times[1] - rows.times[0] == 60.0


def test_times_without_a_date(tmp_path: Path) -> None:
    """Times of day need the date of the start, and go on after midnight."""
    text = "Time;A\n23:59:59,5;1\n00:00:00,5;2\n23:00:00;3\n01:00:00;4\n"
    with pytest.raises(ConfigError, match=r"have no date\. State it with --start"):
        read(tmp_path, text)
    start = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
    _, rows = read(tmp_path, text, start=start)
    assert [time - start for time in rows.times] == [86399.5, 86400.5, 86400 + 82800, 2 * 86400 + 3600]
    text = "Time,A\n11:59:59 PM,1\n12:00:00 AM,2\n"
    with pytest.raises(ConfigError, match="have no date"):
        read(tmp_path, text, time_format="%I:%M:%S %p")
    _, rows = read(tmp_path, text, time_format="%I:%M:%S %p", start=start)
    assert rows.times[1] - rows.times[0] == 1.0


def test_seconds_of_another_epoch(tmp_path: Path) -> None:
    """Seconds since 1904, as LabVIEW counts, would lie in the future if counted from 1970: they are refused."""
    since_1904 = T + 2_082_844_800
    text = f"Time,A\n{since_1904},1\n"
    with pytest.raises(ConfigError, match=r"lies in the future.*--start 1904-01-01"):
        read(tmp_path, text)
    _, rows = read(tmp_path, text, start=datetime(1904, 1, 1, tzinfo=UTC).timestamp())
    assert rows.times == [T]


def test_a_header_between_rows(tmp_path: Path) -> None:
    """A logger that was restarted writes its header again: an equal one is ignored, another order of columns is
    used."""
    text = f"time,A,B\n{T},1,2\ntime,A,B\n{T + 1},3,4\ntime,B,C,A\n{T + 2},6,9,5\ntime,B\n{T + 3},8\n"
    log, rows = read(tmp_path, text)
    assert [time - T for time in rows.times] == [0, 1, 2, 3]
    assert rows.values["A"][:3] == [1, 3, 5]
    assert math.isnan(rows.values["A"][3])
    assert rows.values["B"] == [2, 4, 6, 8]
    assert [note[:35] for note in log.notes] == [
        "line 5 is a header with other colum",
        "line 7 is a header with other colum",
    ]
    assert "and A have no values" in log.notes[1]
