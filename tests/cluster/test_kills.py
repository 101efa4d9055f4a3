"""Every part of a cluster is killed while clients stream: nothing is lost, altered or doubled (issue 18)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from atomstream.cluster.engines import missing_programs
from tests.cluster.kill_rig import Rig, running_cluster

STEPS = (("frozen analyst",), ("server", "analyst"), ("nats", "s3", "postgres"))
"""What fails at the same time. ``python -m benchmarks.cluster`` kills each part many times, at any moment."""


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_killed_processes_lose_nothing() -> None:
    """Each kind of part is killed, and the process that analyses is frozen: all frames and results, as undisturbed."""
    if missing := missing_programs():
        pytest.skip(missing[0])
    with tempfile.TemporaryDirectory(prefix="atomstream-cluster-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with running_cluster(folder / "cluster") as cluster:
            outcome = await Rig(cluster, n_streams=2, n_chunks=len(STEPS) + 2).run_steps(STEPS, folder)
    assert outcome.clean, outcome
