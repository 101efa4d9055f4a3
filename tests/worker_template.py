"""Forks analysis workers for the servers of the tests from a process that has already imported what they need.

Every server of a test starts one or two workers, and the import of scipy takes 1.5 s of processor time in each. One
template process per test process imports it once: ``COMMAND`` of the worker pool becomes a small program
(tests/worker_client.py) that asks the template for a fork. A forked worker has the same code, pipes, environment and
exit code as one that was started as a new process. Servers in separate processes, such as those of the commands,
start their workers as usual.
"""

from __future__ import annotations

import atexit
import gc
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from tests.paths import REPO

CLIENT = Path(__file__).with_name("worker_client.py")


def _supported() -> bool:
    """True on Linux 5.3 or newer; elsewhere workers are started as usual."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return hasattr(socket, "send_fds")


SUPPORTED = _supported()


@cache
def use_template() -> None:
    """Start the template for the rest of this test process, and let the servers use it."""
    if not SUPPORTED:
        return
    from atomstream.server.live import worker_pool

    address = str(Path(tempfile.mkdtemp(prefix="atomstream-template-")) / "socket")
    template = subprocess.Popen(
        [sys.executable, "-m", "tests.worker_template", address],
        cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        env={**os.environ, **worker_pool.ONE_THREAD, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert template.stdin is not None
    assert template.stdout is not None
    assert template.stdout.readline() == b"ready\n"
    # The last argument is for tests that look for workers among the processes.
    command = (sys.executable, "-I", "-S", str(CLIENT), address, "atomstream.server.live.worker")
    setattr(worker_pool, "COMMAND", command)  # noqa: B010  (it is Final)

    @atexit.register
    def end() -> None:
        with template:  # closes its standard input, which ends it, and waits for it
            pass


class Template:
    """Accepts requests and forks a worker for each; ends when its standard input is closed."""

    def __init__(self, address: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(64)
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._listener, selectors.EVENT_READ, self._accept)
        self._ready.register(0, selectors.EVENT_READ, self._end)
        self._running = True

    def serve(self) -> None:
        """Handle requests, killed clients and ended workers until standard input closes."""
        while self._running:
            for key, _ in self._ready.select():
                if self._ready.get_map() and key.fd in self._ready.get_map():  # may be removed by now
                    key.data(key.fileobj)

    def _end(self, _: Any) -> None:
        self._running = False

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        streams: list[int] = []
        try:
            head, streams, *_ = socket.recv_fds(client, 4, 3)
            environment = _exactly(client, int.from_bytes(head, "big"))
            if len(streams) != 3:
                raise ConnectionResetError("the request has no streams")
        except ConnectionError:  # the client was killed
            for stream in streams:
                os.close(stream)
            client.close()
            return
        pid = os.fork()
        if pid == 0:
            _work(streams, environment)
        for stream in streams:
            os.close(stream)
        Fork(self._ready, client, pid)


class Fork:
    """One worker and the process that asked for it: if one ends, the other is ended."""

    def __init__(self, ready: selectors.BaseSelector, client: socket.socket, pid: int) -> None:
        self._ready, self._client, self._pid = ready, client, pid
        self._worker = os.pidfd_open(pid)
        ready.register(client, selectors.EVENT_READ, self._client_ended)
        ready.register(self._worker, selectors.EVENT_READ, self._worker_ended)

    def _client_ended(self, _: Any) -> None:
        self._ready.unregister(self._client)
        os.kill(self._pid, signal.SIGKILL)

    def _worker_ended(self, _: Any) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._ready.unregister(self._worker)
        os.close(self._worker)
        if self._client.fileno() in self._ready.get_map():
            self._ready.unregister(self._client)
            with suppress(ConnectionError):  # the client was killed at the same time
                self._client.sendall(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
        self._client.close()


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the request ended early")
        data += part
    return data


def _work(streams: list[int], environment: bytes) -> None:
    """Be a worker, in the forked process."""
    code = 1
    try:
        from atomstream.server.live import worker

        os.setsid()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        os.closerange(3, 1024)
        os.environb.clear()
        os.environb.update(entry.split(b"=", 1) for entry in environment.split(b"\0"))
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  (it stays open until the process ends)
        worker.main()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """``python -m tests.worker_template SOCKET``"""
    import atomstream.server.live.worker  # noqa: F401  (here, so that the forked processes need not)

    template = Template(sys.argv[1])
    gc.freeze()  # the collector would otherwise copy the shared pages in each worker
    os.write(1, b"ready\n")
    template.serve()
    shutil.rmtree(Path(sys.argv[1]).parent)


if __name__ == "__main__":
    main()
