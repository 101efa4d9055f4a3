"""Texts of users without characters that are not printed."""

from __future__ import annotations


def plain_text(text: str) -> str:
    """A user's text without characters that are not printed, which become blanks."""
    return "".join(char if char.isprintable() else " " for char in text)
