"""``atomstream completion``: completion of commands and options with the Tab key."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from atomstream.cli.exit_codes import ExitCode

VARIABLE: Final = "_ATOMSTREAM_COMPLETE"
"""Environment variable of click: the shell's script sets it and runs the program, which prints the possible words."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print the script with which SHELL completes commands and options of atomstream.

    \b
    Examples (once, then open a new shell):
      atomstream completion bash > ~/.local/share/bash-completion/completions/atomstream
      atomstream completion zsh > ~/.zfunc/_atomstream
      atomstream completion fish > ~/.config/fish/completions/atomstream.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    program = context.find_root().command
    click.echo(kind(program, {}, "atomstream", VARIABLE).source())
    return ExitCode.DONE
