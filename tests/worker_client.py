"""The command of an analysis worker in tests: ``worker_client.py SOCKET``, started in place of a new interpreter.

It passes its standard streams and environment to the template process (tests/worker_template.py), which forks a
worker for them, and exits with the code of that worker. The template kills the worker when this process is killed.
Only the standard library is imported, so that a start takes 20 ms.
"""

from __future__ import annotations

import os
import socket
import sys


def main() -> int:
    """Ask for a worker and wait until it has ended; return its exit code."""
    with socket.socket(socket.AF_UNIX) as template:
        template.connect(sys.argv[1])
        environment = b"\0".join(name + b"=" + value for name, value in os.environb.items())
        socket.send_fds(template, [len(environment).to_bytes(4, "big")], [0, 1, 2])
        template.sendall(environment)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):  # the worker has them now; the server must see when the worker closes them
            os.dup2(nothing, stream)
        code = template.recv(1)
    return code[0] if code else 1


if __name__ == "__main__":
    sys.exit(main())
