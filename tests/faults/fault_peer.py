"""The same rig for the hosted service's own client, for the faults that apply to it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random

from atomstream.records import StreamReport
from tests.faults import fault_damage as damage
from tests.faults import fault_deaths as deaths
from tests.faults import fault_disks as disks
from tests.faults import fault_manners as manners
from tests.faults import fault_outages as outages
from tests.faults.fault_helpers import Film, StepLog, Tally
from tests.faults.fault_rig import HERE, KEY, Rig
from tests.faults.fault_table import ROWS, SEED, Row, places


class PeerRig(Rig):
    """A rig whose pushers are the peer's client; its records are known by their file names only."""

    records = "*.zarr"
    syncs = False

    def __init__(self, folder: Path, python: Path) -> None:
        super().__init__(folder)
        self._python = python

    def new_spool(self) -> Path:
        """An empty folder that exists, because the client removes unknown files."""
        spool = super().new_spool()
        spool.mkdir()
        return spool

    def command(self, film: Film, spool: Path, side: Path, **orders: object) -> list[str]:
        """The command of a peer's process."""
        steps = {"url": self.server.url, "key": KEY, "spool": str(spool), "side": str(side)}
        text = json.dumps({**steps, "film": asdict(film), **orders})
        return [str(self._python), str(HERE / "fault_peer_program.py"), text]

    def leave(self, film: Film, spool: Path, count: int) -> StepLog:
        """A spool with ``count`` records of a client that was killed while the server did not respond."""
        pusher = self.push(film, spool, count=count, pause_at=0, end="hold", env=self.environment)
        pusher.read("paused")
        self.server.pause()
        pusher.send_line()
        pusher.read("held")
        steps = pusher.kill()
        self.server.go_on()
        return steps

    def recover(self, spool: Path, data_id: str) -> StreamReport | None:
        """Run the next process with this spool until no chunk is pending; there is no report."""
        self.push(Film(), spool, end="drain", env=self.environment).ended()
        return None

    @staticmethod
    def index_of(record: Path) -> int:
        """The chunk's index, from the record's name."""
        match = re.search(r"-c(\d+)$", record.stem)
        return int(match[1]) if match else -1

    def is_quarantined(self, record: Path, reported: bool) -> bool:
        """True if the damaged record still exists; the client has no readable report of it."""
        return record.exists()

    @property
    def environment(self) -> dict[str, str]:
        """The environment, with the clock measurement disabled."""
        return {"ATOMSCALE_SKIP_CLOCK_SYNC": "1"}


def _draw() -> Random:
    return Random(SEED)


def rows(tries: int) -> list[tuple[Row, Callable[[Rig], Tally]]]:
    """The rows of the table that apply to the peer's client, each with a function that runs it."""
    named = {row.name: row for row in ROWS}
    step = max(1, 120 // tries)
    ways: dict[str, Callable[[Rig], Tally]] = {
        "killed_client": lambda rig: deaths.killed_client(rig, tries, _draw()),
        "killed_server": lambda rig: deaths.killed_server(rig, max(1, tries // 6), _draw()),
        "full_disk": lambda rig: disks.full_disk(rig, 1),
        "torn_records": lambda rig: damage.damaged_records(rig, step, damage.tear, "torn"),
        "flipped_records": lambda rig: damage.damaged_records(rig, step, damage.flip, "with a bit flipped"),
        "damaged_description": lambda rig: damage.damaged_files(rig, "stream.json", places(4), _draw()),
        "foreign_files": lambda rig: damage.foreign_files(rig, 1),
        "stepping_clock": lambda rig: outages.stepping_clock(rig, 1),
        "interrupted": lambda rig: manners.signalled(rig, signal.SIGINT, max(1, tries // 6), _draw()),
        "exit_without_close": lambda rig: manners.exit_without_close(rig, 2),
    }
    return [(named[name], way) for name, way in ways.items()]
