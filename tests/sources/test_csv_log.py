"""CSV logs of signals: what a table means, logs that grow, and what can't be understood."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from atomstream.errors import ConfigError
from atomstream.sources.csv_log import CsvLog, Rows
from atomstream.sources.csv_times import CsvOptions

T = 1_735_689_600.0


def read(folder: Path, text: str | bytes, **options: object) -> tuple[CsvLog, Rows]:
    """Read a whole log."""
    path = folder / "log.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    log = CsvLog(path, CsvOptions(**{"zone": UTC, **options}))  # type: ignore[arg-type]
    return log, log.read(complete=True)


@pytest.mark.parametrize(
    ("text", "channels", "values"),
    [
        ("time,T (°C),p [mbar]\n1735689600,500,1e-9\n", {"T": "°C", "p": "mbar"}, [500.0, 1e-9]),
        ("t;Temp;shutter\n1735689600,0;500,5;open\n", {"Temp": None, "shutter": None}, [500.5, 1.0]),
        ("# run 5\n# operator me\nTimestamp\tA / V\n2025-01-01T00:00:00Z\t1\n", {"A": "V"}, [1.0]),
        ("Date,Time,A\n2025-01-01,00:00:00.000,7\n", {"A": None}, [7.0]),
        ("Datum Zeit;A\n01.01.2025 00:00:00;7,25\n", {"A": None}, [7.25]),
        ("unix_ms,A,note\n1735689600000,5,fine\n", {"A": None}, [5.0]),
        ("t A B\n1735689600 5 6\n", {"A": None, "B": None}, [5.0, 6.0]),
        ('time,"T, left",T\n1735689600,1,\n', {"T, left": None, "T": None}, [1.0, math.nan]),
        ("time,A,A\n1735689600,1,2", {"A": None, "A 2": None}, [1.0, 2.0]),
        ("\ufefftime,A\r\n1735689600,1\r\n", {"A": None}, [1.0]),
        ("time,Größe (µm)\n1735689600,1\n".encode("cp1252"), {"Größe": "µm"}, [1.0]),
        ("time,A\n1735689600,1\n".encode("utf-16"), {"A": None}, [1.0]),
    ],
)
def test_what_a_table_means(
    tmp_path: Path, text: str | bytes, channels: dict[str, str | None], values: list[float]
) -> None:
    """Separator, decimal comma, preamble, units, text columns, words, encodings and forms of times are found."""
    log, rows = read(tmp_path, text)
    assert log.channels == channels
    assert rows.times == [T]
    assert [one[0] for one in rows.values.values()] == pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "times", "expected"),
    [
        ("Time (ms)", (0, 1500), (0.0, 1.5)),
        ("t/min", (0, 2), (0.0, 120.0)),
        ("Zeit [h]", (0, 1), (0.0, 3600.0)),
        ("elapsed_us", (500_000, 2_000_000), (0.5, 2.0)),
        ("time (s)", (0, 2), (0.0, 2.0)),
        ("Time", (0, 2), (0.0, 2.0)),
        ("timestamp_ms", (1e3 * T, 1e3 * T + 250), (0.0, 0.25)),
        ("time [min]", (T / 60, T / 60 + 1), (0.0, 60.0)),
    ],
)
def test_the_unit_of_the_times(
    tmp_path: Path, name: str, times: tuple[float, float], expected: tuple[float, float]
) -> None:
    """The unit in the header of the times counts, from a start and since 1970: milliseconds are no seconds."""
    text = f"{name},A\n" + "".join(f"{time!r},1\n" for time in times)
    _, rows = read(tmp_path, text, start=T)
    assert rows.times == pytest.approx([T + one for one in expected], abs=1e-5)


def test_options_state_what_is_not_found(tmp_path: Path) -> None:
    """Another form of time, a start, a choice of channels and units."""
    american = "when,A,B\n01/31/2025 01:00:00 PM,1,2\n"
    with pytest.raises(ConfigError, match="State its form with --time-format"):
        read(tmp_path, american)
    log, rows = read(
        tmp_path, american, time_format="%m/%d/%Y %I:%M:%S %p", channels=("B",), units={"B": "K"}
    )
    assert log.channels == {"B": "K"}
    assert rows.times == [datetime(2025, 1, 31, 13, tzinfo=UTC).timestamp()]
    with pytest.raises(ConfigError, match="State it with --start"):
        read(tmp_path, "t,A\n0.5,1\n")
    _, rows = read(tmp_path, "t,A\n0.5,1\n", start=T)
    assert rows.times == [T + 0.5]
    with pytest.raises(ConfigError, match="no column 'x'"):
        read(tmp_path, "t,A\n0.5,1\n", time_column="x")
    with pytest.raises(ConfigError, match="no channel 'C'"):
        read(tmp_path, "t,A\n1735689600,1\n", channels=("C",))


@pytest.mark.parametrize("text", ["", "hello\n", "a,b\nc,d\n", "just text\n" * 200])
def test_an_invalid_table(tmp_path: Path, text: str) -> None:
    """An empty log has no rows yet; text is refused and named."""
    if text:
        with pytest.raises(ConfigError, match="is not a table of signals"):
            read(tmp_path, text)
    else:
        assert read(tmp_path, text)[1].times == []


def test_wrong_lines_are_left_out_and_named(tmp_path: Path) -> None:
    """Of a short line or an invalid time the line is left out, of an invalid value the value; each is noted once."""
    log, rows = read(
        tmp_path, "time,A\n1735689600,1\n\n1735689601\nnever,5\n1735689602,broken\nnever,5\n1735689603,4\n"
    )
    assert [one - T for one in rows.times] == [0.0, 1.0, 2.0, 3.0] or [one - T for one in rows.times] == [
        *(0.0, 2.0, 3.0)
    ]
    assert rows.values["A"][-1] == 4.0
    assert math.isnan(rows.values["A"][-2])
    assert sum("is not a time" in note for note in log.notes) == 1
    assert sum("is not a number" in note for note in log.notes) == 1


def test_a_log_that_grows(tmp_path: Path) -> None:
    """Only complete lines are read, each once; a file that begins again is read from its start."""
    path = tmp_path / "log.csv"
    log = CsvLog(path, CsvOptions(zone=UTC))
    with pytest.raises(FileNotFoundError):
        log.read()
    path.write_text("time,A\n17356")
    assert log.read().times == []
    with path.open("a") as file:
        file.write("89600,1\n1735689601,2\n173")
    assert log.read().values == {"A": [1.0, 2.0]}
    assert log.read().times == []
    with path.open("a") as file:
        file.write("5689602,3\n")
    assert log.read().values == {"A": [3.0]}
    path.write_text("time,B\n1735689700,9\n")
    assert log.read().values == {"B": [9.0]}
    assert "begins again" in log.notes[0]
    path.unlink()
    assert log.read().times == []


def test_a_column_that_begins_with_text(tmp_path: Path) -> None:
    """An instrument that is out of range at first: its column is read from its first number on, also in a later part
    of a log that grows.
    """
    log, rows = read(tmp_path, "time,A,B (K),C\n1735689600,OVERRANGE,1,note\n1735689601,5,2,more\n")
    assert log.channels == {"B": "K", "A": None}
    assert rows.values["B"] == [1.0, 2.0]
    assert rows.values["A"] == pytest.approx([math.nan, 5.0], nan_ok=True)
    assert any("has numbers from there on" in note for note in log.notes)
    log, _ = read(tmp_path, "time,B,A\n1735689600,1,off line\n")
    assert log.channels == {"B": None}
    with (tmp_path / "log.csv").open("a") as file:
        file.write("1735689601,2,off line\n1735689602,3,7\n")
    rows = log.read(complete=True)
    assert rows.times == [T + 1, T + 2]
    assert rows.values["A"] == pytest.approx([math.nan, 7.0], nan_ok=True)


@pytest.mark.parametrize("missing", ["", "---", "N/A", "#N/A", "NaN"])
def test_a_log_whose_first_value_is_missing(tmp_path: Path, missing: str) -> None:
    """The header is found by the name of its times, also if the first row has no number yet."""
    log, rows = read(tmp_path, f"time,A\n1735689600,{missing}\n1735689601,5\n")
    assert log.channels == {"A": None}
    assert rows.values["A"] == pytest.approx([math.nan, 5.0], nan_ok=True)
