"""Servers and analysis processes of a cluster, each as one process on this machine."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from atomstream.cluster.engine import HOST, Engine, free_ports
from atomstream.protocol import HEALTH_PATH


class Node(Engine):
    """One process of atomstream: ``arguments`` are those of its command, ``environment`` has the secrets."""

    def __init__(
        self, name: str, folder: Path, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        super().__init__(folder)
        self.name = name
        self._arguments = list(arguments)
        self._given = dict(environment)

    def _prepare(self) -> None:
        """Nothing to prepare: the process makes its own folders."""

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "atomstream", *self._arguments]

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ATOMSTREAM_", "AWS_"))
        }
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        return {**threads, **kept, **self._given, "PYTHONUNBUFFERED": "1"}


class ServerNode(Node):
    """``atomstream serve``."""

    def __init__(
        self, name: str, folder: Path, services: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.port = free_ports(1)[0]
        arguments = ["serve", "--data", str(folder / "cache"), "--port", str(self.port), *services]
        super().__init__(name, folder, arguments, environment)

    @property
    def url(self) -> str:
        """The endpoint of this server alone."""
        return f"http://{HOST}:{self.port}"

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + HEALTH_PATH, timeout=1.0):
                return True
        except urllib.error.HTTPError:
            return True  # it answers
        except OSError:
            return False


class AnalystNode(Node):
    """``atomstream analyse``."""

    def __init__(
        self, name: str, folder: Path, services: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        super().__init__(name, folder, ["analyse", "--data", str(folder / "cache"), *services], environment)
        self._begun_at = 0

    @property
    def url(self) -> str:
        """An empty text: an analysis process listens on no port."""
        return ""

    def _prepare(self) -> None:
        self._begun_at = self._log.stat().st_size if self._log.exists() else 0

    def _answers(self) -> bool:
        with open(self._log, "rb") as log:
            log.seek(self._begun_at)
            return b"atomstream analyses" in log.read()
