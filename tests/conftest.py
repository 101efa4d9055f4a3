"""For all tests: a clean environment, a check for leftovers, real servers on demand, and the parallel run."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import pytest

from tests.engines import nats_server, postgres_server, s3_server
from tests.leftovers import no_leftovers, no_tasks_left, restored_logging
from tests.live_server import LiveServer, Serve, ThreadedServer, new_folders, serving
from tests.paths import MEMORY
from tests.reruns import pytest_sessionfinish, pytest_terminal_summary
from tests.scheduling import pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler

__all__ = [
    "nats_server",
    "no_leftovers",
    "no_tasks_left",
    "postgres_server",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_xdist_auto_num_workers",
    "pytest_xdist_make_scheduler",
    "restored_logging",
    "s3_server",
]

# Compiled modules are stored, also where the user's environment forbids it: the tests start hundreds of processes, each
# of which would compile the package again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# An example takes longer on a busy machine, which is not a failure.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Exclude the collected tests and the imported modules from garbage collection.

    They live to the end of the run, and would make each full collection take 0.4 s.
    """
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _enable_sigint() -> None:
    """Enable SIGINT for child processes: a shell's background job, such as a CI run, starts with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Remove the developer's own settings, and point the user's folders to a temporary one."""
    for name in os.environ:
        # ATOMSTREAM_PLAIN_OS applies to the whole test run, child processes included.
        if name.startswith(("ATOMSTREAM_", "ATOMSCALE_")) and name != "ATOMSTREAM_PLAIN_OS":
            monkeypatch.delenv(name)
    home = str(tmp_path_factory.getbasetemp() / f"home-{uuid.uuid4().hex}")
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(name, home)


@pytest.fixture(autouse=True, scope="session")
def _aioresponses_shim() -> Iterator[None]:
    """Give replies of aioresponses 0.7.9 the argument ``stream_writer``, which aiohttp 3.14 requires."""
    core = pytest.importorskip("aioresponses.core")
    if "stream_writer" not in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
        yield
        return

    class Reply(aiohttp.ClientResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            from unittest.mock import Mock

            super().__init__(*args, **{"stream_writer": Mock(output_size=0), **kwargs})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "ClientResponse", Reply)
        yield


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """An empty folder in memory, for tests that simulate a disk: an fsync of a real disk would only take time.

    Name it before ``serve`` or ``serve_in_thread``: fixtures end in the reverse order, and a server needs its folder.
    """
    with tempfile.TemporaryDirectory(prefix="atomstream-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A factory of real servers in the test's event loop: ``server = await serve(silence_s=5.0)``.

    Settings are the fields of :class:`atomstream.server.ServerSettings`. ``data_dir`` is a new folder in memory and
    ``port`` a free one unless given. ``await server.stop()`` and ``await server.start()`` restart it on the same
    folder, port and key. Servers that still run at the end of the test are stopped.
    """
    async with serving() as factory:
        yield factory


@pytest.fixture
def serve_in_thread() -> Iterator[Callable[..., ThreadedServer]]:
    """The same for tests without an event loop (blocking clients): ``server = serve_in_thread(silence_s=5.0)``."""
    made: list[ThreadedServer] = []
    with new_folders() as new_folder:

        def factory(**settings: Any) -> ThreadedServer:
            settings.setdefault("data_dir", new_folder())
            made.append(ThreadedServer(LiveServer(**settings)))
            made[-1].start()
            return made[-1]

        yield factory
        for server in made:
            server.stop()
