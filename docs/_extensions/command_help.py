"""The directive ``command-help``: the ``--help`` texts of all atomstream commands, as the program prints them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from atomstream.cli import commands

WIDTH = 92


def all_commands(
    command: click.Command, path: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """(name, help text) of a command and of all below it."""
    with click.Context(
        command, info_name=path.rpartition(" ")[2], parent=parent, terminal_width=WIDTH
    ) as context:
        yield path, command.get_help(context)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                if below is not None and not below.hidden:
                    yield from all_commands(below, f"{path} {name}", context)


class CommandHelp(SphinxDirective):
    """One section for each command."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        found: list[nodes.Node] = []
        for name, text in all_commands(commands, "atomstream"):
            section = nodes.section(ids=[nodes.make_id(name)], names=[name])
            section += nodes.title(name, name)
            section += nodes.literal_block(text, text, language="text")
            found.append(section)
        return found


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
