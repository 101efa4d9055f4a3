"""``docs/troubleshooting.md``: each message that it quotes exists in the program, word for word."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Final

import pytest

from atomstream import errors
from tests.paths import REPO

PAGE: Final = (REPO / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES: Final = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
VARIABLE: Final = "\0"


@cache
def texts() -> tuple[str, ...]:
    """All texts in the program's code; what an f-string inserts is ``VARIABLE``."""
    found = []
    for path in (REPO / "atomstream").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        part.value if isinstance(part, ast.Constant) else VARIABLE for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def parts(message: str) -> list[str]:
    """The fixed parts of a quoted message."""
    return [part.strip() for part in message.split("…") if len(part.strip()) > 3]


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_exists(message: str) -> None:
    """Each fixed part of the message is in a text of the code, the longest ones all in texts of one kind of error."""
    missing = [part for part in parts(message) if not any(part in text for text in texts())]
    assert missing == []


def test_every_class_of_errors_has_an_entry() -> None:
    """The last table names each exception of the package once."""
    classes = [
        name
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, errors.AtomstreamError)
    ]
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(classes)


def test_messages_are_quoted_once() -> None:
    """No message has two entries, and every section quotes a message."""
    assert len(set(MESSAGES)) == len(MESSAGES) > 30
    assert len(re.findall(r"^### ", PAGE, re.MULTILINE)) == len(MESSAGES)
