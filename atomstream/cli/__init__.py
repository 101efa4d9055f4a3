"""Command-line interface. Each command imports heavy modules only when it runs, so ``--help`` is fast."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from atomstream.cli.analyse import analyse
from atomstream.cli.audit import audit
from atomstream.cli.camera import camera
from atomstream.cli.cluster_up import cluster
from atomstream.cli.completion import completion
from atomstream.cli.console import console
from atomstream.cli.demo import demo
from atomstream.cli.docs import docs
from atomstream.cli.exit_codes import EXIT_CODES, ExitCode, exit_code_of, message_of
from atomstream.cli.export import export
from atomstream.cli.key_argument import hide_key_argument, is_own_process
from atomstream.cli.keys import keys
from atomstream.cli.login import login, logout
from atomstream.cli.project import project
from atomstream.cli.record import record
from atomstream.cli.retention import retention
from atomstream.cli.serve import reindex, serve
from atomstream.cli.signals import signals
from atomstream.cli.spool import spool
from atomstream.cli.stream import stream
from atomstream.cli.streams import streams
from atomstream.cli.upkeep import backup, check, gc, restore
from atomstream.cli.users import users
from atomstream.system.child_process import freeze_support
from atomstream.system.log_privacy import print_redacted, redact
from atomstream.version import __version__

__all__ = ["commands", "main"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="atomstream")
def commands() -> None:
    """Stream live RHEED frames from a camera to a server for analysis, without losing any.

    \b
    Try it (one command, no setup, less than half a minute):
      atomstream demo
    \b
    Run a server on a lab PC, and stream a recording to it:
      atomstream serve --data D:/rheed
      atomstream stream growth.npy --fps 120 --endpoint http://127.0.0.1:8765 --api-key atst_...
    \b
    Stream from a live camera in Python:
      from atomstream import RHEEDStreamer
    """


for _command in (
    demo,
    docs,
    serve,
    analyse,
    login,
    logout,
    record,
    stream,
    signals,
    camera,
    streams,
    export,
    spool,
    project,
    users,
    keys,
    audit,
    cluster,
    backup,
    restore,
    check,
    gc,
    retention,
    reindex,
    completion,
):
    commands.add_command(_command)


def main() -> None:
    """Run the command of ``sys.argv`` and exit with its code."""
    freeze_support()
    if is_own_process():
        hide_key_argument()
        sys.excepthook = print_redacted
    sys.exit(_run())


def _run() -> int:
    console.redirect_messages()
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # a name that the terminal can't show must not end the command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _code(commands.main(prog_name="atomstream", standalone_mode=False))
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        sys.stderr.write(redact(shown.getvalue()))  # it may repeat a mistyped option with its value
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.write("Interrupted.")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader closed the pipe, as `| head` does
        sys.stderr.close()
        return ExitCode.INCOMPLETE
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        console.write(f"atomstream: {redact(message_of(error))}")
        return code


def _code(returned: Any) -> int:
    return int(returned) if isinstance(returned, int) else ExitCode.DONE
