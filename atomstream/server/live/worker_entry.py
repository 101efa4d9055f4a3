"""The start of a worker process: imports what the analysis needs, and reports to the server if that fails.

It is a separate module so that it imports almost nothing before: a missing or damaged library is then an error that
the server can show, and not only a process that has ended.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Be a worker until standard input closes."""
    output = os.dup(1)
    try:
        from atomstream.server.live import worker
    except Exception as error:
        import traceback

        from atomstream.server.live import worker_messages

        where = traceback.extract_tb(error.__traceback__)[-1].filename
        reply = worker_messages.ErrorReply("start", f"{type(error).__name__}: {error} ({where})")
        os.write(output, worker_messages.pack(reply))
        traceback.print_exc()
        sys.exit(1)
    os.close(output)
    worker.main()
