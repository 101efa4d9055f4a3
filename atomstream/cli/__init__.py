"""The commands. Each lies in a file of its own and imports what it needs when it runs: ``--help`` is instant."""

from __future__ import annotations

import sys
from typing import Any

import click

from atomstream.cli.console import console
from atomstream.cli.demo import demo
from atomstream.cli.exit_codes import EXIT_CODES, ExitCode, exit_code_of, sentence_of
from atomstream.cli.project import project
from atomstream.cli.serve import reindex, serve
from atomstream.cli.spool import spool
from atomstream.cli.stream import stream
from atomstream.version import __version__

__all__ = ["commands", "main"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="atomstream")
def commands() -> None:
    """Stream live RHEED frames from the camera to the place of analysis, and lose none.

    \b
    See it work (one command, no setup, under half a minute):
      atomstream demo
    \b
    Your own server on a lab PC, and a recording streamed to it:
      atomstream serve --data D:/rheed
      atomstream stream growth.npy --fps 120 --endpoint http://127.0.0.1:8765 --api-key atst_...
    \b
    A live camera streams from Python instead:
      from atomstream import RHEEDStreamer
    """


for _command in (demo, serve, stream, spool, project, reindex):
    commands.add_command(_command)


def main() -> None:
    """Run the command of ``sys.argv`` and exit with its code."""
    sys.exit(_run())


def _run() -> int:
    console.take_over_messages()
    try:
        return _code(commands.main(prog_name="atomstream", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.say("Interrupted.")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        return ExitCode.INCOMPLETE
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        console.say(f"atomstream: {sentence_of(error)}")
        return code


def _code(returned: Any) -> int:
    return int(returned) if isinstance(returned, int) else ExitCode.DONE
