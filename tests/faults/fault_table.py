"""The rows of the fault campaign, each with its quick and its full version."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.faults import fault_damage as damage
from tests.faults import fault_deaths as deaths
from tests.faults import fault_disks as disks
from tests.faults import fault_kernel as kernel
from tests.faults import fault_manners as manners
from tests.faults import fault_outages as outages
from tests.faults.fault_helpers import Tally
from tests.faults.fault_rig import Rig

SEED = 20_261_122


@dataclass(frozen=True)
class Row:
    """One fault: ``quick`` for CI, ``full`` for the campaign; ``why_not`` is the reason why it can't run on this
    computer.
    """

    name: str
    quick: Callable[[Rig], Tally]
    full: Callable[[Rig], Tally]
    why_not: Callable[[], str] = lambda: ""


def _draw() -> Random:
    return Random(SEED)


def _needs(able: Callable[[], bool], reason: str) -> Callable[[], str]:
    return lambda: "" if able() else reason


_TRACE = _needs(kernel.can_trace, kernel.NO_STRACE)
_MOUNT = _needs(kernel.can_mount, kernel.NO_MOUNT)
_CLOCK = _needs(kernel.can_step_clocks, kernel.NO_COMPILER)
_FORK = _needs(lambda: hasattr(signal, "SIGSTOP"), "this system has no fork and can't stop a process")


def _moments(times: range) -> list[tuple[str, int]]:
    return [(call, n) for call in deaths.CALLS for n in times]


def _failures(*whens: str) -> list[tuple[str, str, str]]:
    return [(call, code, when) for call, code in disks.FAILURES for when in whens]


ROWS = (
    Row(
        "killed_client",
        lambda rig: deaths.killed_client(rig, 8, _draw()),  # each combination of its settings once
        lambda rig: deaths.killed_client(rig, 200, _draw()),
        _FORK,
    ),
    Row(
        "killed_at_calls",
        lambda rig: deaths.killed_at_calls(
            rig, [("rename", 7), ("fdatasync", 11), ("fsync", 9), ("unlink", 12)]
        ),
        lambda rig: deaths.killed_at_calls(rig, _moments(range(1, 41))),
        _TRACE,
    ),
    Row(
        "killed_server",
        lambda rig: deaths.killed_server(rig, 2, _draw()),
        lambda rig: deaths.killed_server(rig, 20, _draw()),
        _FORK,
    ),
    Row(
        "failing_disk",
        lambda rig: disks.failing_disk(rig, [("fdatasync", "EIO", "7+2"), ("writev", "ENOSPC", "9+3")]),
        lambda rig: disks.failing_disk(rig, _failures("6", "7+2", "8+1", "5+5")),
        _TRACE,
    ),
    Row(
        "failing_disk_then_death",
        lambda rig: disks.failing_disk_then_death(rig, [("fdatasync", "EIO", "9..10")]),
        lambda rig: disks.failing_disk_then_death(rig, _failures("9..10", "14")),
        _TRACE,
    ),
    Row(
        "full_disk",
        lambda rig: disks.full_disk(rig, 1),
        lambda rig: disks.full_disk(rig, 5),
        _MOUNT,
    ),
    Row(
        "full_disk_then_death",
        lambda rig: disks.full_disk_then_death(rig, 1),
        lambda rig: disks.full_disk_then_death(rig, 10),
        _MOUNT,
    ),
    Row(
        "read_only_disk",
        lambda rig: disks.read_only_disk(rig, 1),
        lambda rig: disks.read_only_disk(rig, 3),
        _MOUNT,
    ),
    Row(
        "no_folder",
        lambda rig: disks.no_folder(rig, 1),
        lambda rig: disks.no_folder(rig, 3),
    ),
    Row(
        "torn_records",
        lambda rig: damage.damaged_records(rig, 23, damage.tear, "torn"),
        lambda rig: damage.damaged_records(rig, 1, damage.tear, "torn, at each byte"),
        _FORK,
    ),
    Row(
        "flipped_records",
        lambda rig: damage.damaged_records(rig, 23, damage.flip, "with a bit flipped"),
        lambda rig: damage.damaged_records(rig, 1, damage.flip, "with a bit flipped, in each byte"),
        _FORK,
    ),
    Row(
        "damaged_journal",
        lambda rig: damage.damaged_files(rig, "journal", places(6), _draw()),
        lambda rig: damage.damaged_files(rig, "journal", places(150), _draw()),
        _FORK,
    ),
    Row(
        "damaged_description",
        lambda rig: damage.damaged_files(rig, "stream.json", places(4), _draw()),
        lambda rig: damage.damaged_files(rig, "stream.json", places(100), _draw()),
        _FORK,
    ),
    Row(
        "damaged_usage",
        lambda rig: damage.damaged_files(rig, "usage", places(2), _draw()),
        lambda rig: damage.damaged_files(rig, "usage", places(12), _draw()),
        _FORK,
    ),
    Row(
        "foreign_files",
        lambda rig: damage.foreign_files(rig, 1),
        lambda rig: damage.foreign_files(rig, 10),
        _FORK,
    ),
    Row(
        "outage",
        lambda rig: outages.outage(rig, 30.0, 1_000_000),
        lambda rig: outages.outage(rig, 600.0, 8_000_000),
        _FORK,
    ),
    Row(
        "stepping_clock",
        lambda rig: outages.stepping_clock(rig, 1),
        lambda rig: outages.stepping_clock(rig, 10),
        _CLOCK,
    ),
    Row(
        "clock_between_processes",
        lambda rig: outages.clock_between_processes(rig, 2),
        lambda rig: outages.clock_between_processes(rig, 10),
        _CLOCK,
    ),
    Row(
        "interrupted",
        lambda rig: manners.signalled(rig, signal.SIGINT, 2, _draw()),
        lambda rig: manners.signalled(rig, signal.SIGINT, 40, _draw()),
        _FORK,
    ),
    Row(
        "terminated",
        lambda rig: manners.signalled(rig, signal.SIGTERM, 1, _draw()),
        lambda rig: manners.signalled(rig, signal.SIGTERM, 40, _draw()),
        _FORK,
    ),
    Row(
        "exit_without_close",
        lambda rig: manners.exit_without_close(rig, 2),
        lambda rig: manners.exit_without_close(rig, 20),
        _FORK,
    ),
    Row("forked", lambda rig: manners.forked(rig, 1), lambda rig: manners.forked(rig, 10), _FORK),
    Row(
        "shared_spool",
        lambda rig: manners.shared_spool(rig, 2),
        lambda rig: manners.shared_spool(rig, 5),
        _FORK,
    ),
    Row(
        "contested_stream",
        lambda rig: manners.contested_stream(rig, 1),
        lambda rig: manners.contested_stream(rig, 5),
        _FORK,
    ),
    Row(
        "pushed_twice",
        lambda rig: manners.pushed_twice(rig, 1),
        lambda rig: manners.pushed_twice(rig, 10),
        _FORK,
    ),
)


def places(count: int) -> list[float]:
    """Positions distributed evenly over a file, with its first and last byte."""
    return [k / max(1, count - 1) for k in range(count)]
