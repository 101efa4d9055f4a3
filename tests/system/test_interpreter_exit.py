"""Knowing the end of the interpreter, and waiting for threads without one."""

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


def test_the_end_is_known() -> None:
    """Executors refuse work in exit hooks, and that is told from any other moment."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["before", "False", "exit", "True"]
    assert not interpreter_is_exiting()


async def test_threads_are_waited_for_and_no_longer() -> None:
    """wait_for_threads() returns once the threads have, or when its time is up."""
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    await wait_for_threads([thread], wait_s=0.01)
    assert thread.is_alive()
    go_on.set()
    await wait_for_threads([thread])
    assert not thread.is_alive()
