"""A whole cluster on one machine: three services, servers, analysis processes, and the port of a load balancer."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from atomstream.cluster.engine import HOST, Engine, free_ports
from atomstream.cluster.engines import BUCKET, Nats, PostgreSQL, SeaweedFS, missing_programs
from atomstream.cluster.nodes import AnalystNode, ServerNode
from atomstream.config import home_expanded, usable_cores
from atomstream.errors import ConfigError

API_KEY_FILE = "api-key.txt"


class LocalCluster:
    """The processes below ``folder``, one folder each. Made once; :meth:`start` and :meth:`stop` may be repeated.

    Attributes:
        api_key: the key of all servers, also in ``api-key.txt``.
        port: the port of the load balancer, which is not one of the processes.
    """

    def __init__(self, folder: Path, servers: int = 2, analysts: int = 2, port: int = 0) -> None:
        self.folder = home_expanded(folder).absolute()
        self.port = port or free_ports(1)[0]
        self.nats = Nats(self.folder / "nats")
        self.s3 = SeaweedFS(self.folder / "s3")
        self.postgres = PostgreSQL(self.folder / "postgres")
        self.api_key = self._load_key()
        services = [
            *("--store", f"s3://{BUCKET}?endpoint={self.s3.url}"),
            *("--bus", self.nats.url),
        ]
        environment = {**self.s3.environment, "ATOMSTREAM_API_KEY": self.api_key}
        catalogue = ["--catalogue", self.postgres.url, "--public-url", self.url]
        self.servers = [
            ServerNode(f"server {k}", self.folder / f"server-{k}", [*services, *catalogue], environment)
            for k in range(1, servers + 1)
        ]
        workers = max(1, usable_cores() // max(1, analysts))  # all of them are on this computer
        limits = ["--limit", f"analysis_workers={workers}", "--log-level", "info"]
        self.analysts = [
            AnalystNode(f"analyst {k}", self.folder / f"analyst-{k}", [*services, *limits], environment)
            for k in range(1, analysts + 1)
        ]

    @property
    def url(self) -> str:
        """The endpoint for clients."""
        return f"http://{HOST}:{self.port}"

    @property
    def parts(self) -> list[Engine]:
        """All processes, in the order of their start."""
        return [self.nats, self.s3, self.postgres, *self.servers, *self.analysts]

    def _load_key(self) -> str:
        path = self.folder / API_KEY_FILE
        with contextlib.suppress(FileNotFoundError):
            return path.read_text("ascii").strip()
        self.folder.mkdir(parents=True, exist_ok=True)
        key = "atst_" + secrets.token_urlsafe(32)
        path.touch(mode=0o600)
        path.write_text(key + "\n", "ascii")
        return key

    def start(self) -> None:
        """Start all processes; returns when all answer.

        Raises:
            ConfigError: a program is missing, or a process does not answer; those that run are stopped.
        """
        missing = missing_programs()
        if missing:
            raise ConfigError("\n".join(missing))
        try:
            for group in (
                [self.nats, self.s3, self.postgres],
                self.servers[:1],
                [*self.servers[1:], *self.analysts],
            ):
                with ThreadPoolExecutor(max(1, len(group))) as threads:
                    list(threads.map(Engine.start, group))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes in the reverse order."""
        for group in ([*self.analysts, *self.servers], [self.nats, self.s3, self.postgres]):
            with ThreadPoolExecutor(max(1, len(group))) as threads:
                list(threads.map(lambda part: part.stop(), group))

    def ended(self) -> Iterator[Engine]:
        """The processes that have ended by themselves."""
        return (part for part in self.parts if not part.running)
