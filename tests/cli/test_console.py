"""Output of the commands."""

from __future__ import annotations

from atomstream.cli.console import printable


def test_names_do_not_command_the_terminal() -> None:
    """Control characters in names of streams, projects and people are shown as question marks."""
    assert printable("GaN \x1b]0;evil\x07\r\nÅ") == "GaN ?]0;evil???Å"
