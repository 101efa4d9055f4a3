"""Detecting interpreter exit, and waiting for threads without starting one."""

from __future__ import annotations

import subprocess
import sys
import threading

from atomstream.system.scheduling import interpreter_is_exiting, wait_for_threads

SCRIPT = """
import atexit, sys
from atomstream.system.scheduling import interpreter_is_exiting
atexit.register(lambda: print("exit", interpreter_is_exiting()))
print("before", interpreter_is_exiting())
"""


def test_interpreter_exit_is_detected() -> None:
    """True in exit hooks, where executors refuse work; False before."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["before", "False", "exit", "True"]
    assert not interpreter_is_exiting()


async def test_the_wait_for_threads_is_bounded() -> None:
    """``wait_for_threads`` returns when the threads have ended or the time limit is over."""
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    await wait_for_threads([thread], wait_s=0.01)
    assert thread.is_alive()
    go_on.set()
    await wait_for_threads([thread])
    assert not thread.is_alive()
