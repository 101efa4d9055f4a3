"""An analysis process that can't go on ends, so that it is started again (atomstream.server.analyst)."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from atomstream.cluster.engines import Nats
from atomstream.server.analyst import RunningAnalyst, run_analyst
from atomstream.server.settings import ServerSettings


async def test_an_error_of_the_work_ends_the_process(
    nats_server: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its work it would live on and analyse nothing: the error is raised, and nothing is left running."""
    from atomstream.server.ports.bus_address import BusAddress
    from atomstream.server.ports.jetstream_placement import JetStreamPlacement

    ready = asyncio.Event()

    async def fail(self: JetStreamPlacement, _handler: object, _lost: object) -> None:
        await ready.wait()
        raise RuntimeError("no subscription")

    def note(_analyst: RunningAnalyst) -> None:
        ready.set()

    monkeypatch.setattr(JetStreamPlacement, "work", fail)
    bus = BusAddress.parse(f"{nats_server.url}?name=t{uuid.uuid4().hex[:8]}", {})
    settings = ServerSettings(data_dir=tmp_path / "cache", store=str(tmp_path / "store"), bus=bus)
    async with asyncio.timeout(60):
        with pytest.raises(RuntimeError, match="no subscription"):
            await run_analyst(settings, note)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("atomstream")]
