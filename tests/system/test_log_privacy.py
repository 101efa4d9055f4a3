"""Secrets in log records: removed before any handler, by value and by the place where they are."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import atomstream
from atomstream.system.log_privacy import get_logger, hide, protect_libraries, redact

KEY = "atst_" + "kR7-_x" * 7
CHOSEN = 'lab key "with" \\ odd letters %1'


@pytest.mark.parametrize(
    "text",
    [
        "Invalid header value char:\n\n  b'X-API-KEY: SECRET\\x01'\n    ^",
        'Invalid header: b"x-api-key : SECRET"',
        "X-API-KEY:SECRET",
        "{'X-API-Key': 'SECRET'}",
        "headers (('X-API-KEY', 'SECRET'),)",
        "Cookie: a=b; atomstream_session_8765=SECRET",
        "Set-Cookie: atomstream_session_8765=SECRET; HttpOnly",
        "Authorization: Bearer SECRET",
        "proxy-authorization: Basic SECRET",
        "PUT /upload/1/2?ticket=SECRET&signature=SECRET HTTP/1.7",
        "https://bucket.s3/x?X-Amz-Credential=SECRET%2Fus&X-Amz-Signature=SECRET",
        'body b\'{"key":"SECRET"}\'',
        '{"key": "SECRET',
        "{'password': 'SECRET'}",
        '{\\"token\\": \\"SECRET\\"}',
        "api_key=SECRET",
        "no connection through http://user:SECRET@proxy.lab:3128",
    ],
)
def test_places_of_secrets_are_emptied(text: str) -> None:
    """Wherever a header, a cookie, a query or a body is quoted, its secret is replaced."""
    for secret in ("hunter2-and-more", KEY):
        clean = redact(text.replace("SECRET", secret))
        assert secret not in clean
        assert "***" in clean


@pytest.mark.parametrize(
    "text",
    [
        "The API key is wrong: it is not a key of this server.",
        "An API key is needed: send it in the header X-API-KEY.",
        "Check the API key (api_key=... or ATOMSTREAM_API_KEY), and that it belongs to this server",
        "Stream 3e0f6d3a-52c5-4b39-9a29-6a1d0e4b7c11: chunk 7 is stored",
        "The signature of this upload URL is wrong; request a new URL.",
    ],
)
def test_ordinary_sentences_stay(text: str) -> None:
    """Sentences about keys are not changed, even if a wrong key that was sent equals a word in them."""
    hide("wrong")
    hide("key")
    assert redact(text).replace("api_key=***", "api_key=...") == text


@pytest.mark.parametrize("secret", [KEY, CHOSEN])
def test_known_values_are_removed_everywhere(secret: str) -> None:
    """A key that was registered with the filter is removed in each spelling: plain, quoted, in JSON and in a URL."""
    import json
    from urllib.parse import quote

    hide(secret)
    for spelling in (secret, repr(secret), repr(secret.encode()), json.dumps({"x": secret}), quote(secret)):
        assert secret[:12] not in redact(f"something {spelling} something")


def test_every_part_of_a_record_is_cleaned(caplog: pytest.LogCaptureFixture) -> None:
    """Message, arguments, traceback and chained causes are cleaned for every handler; the level is not changed."""
    protect_libraries()
    for name in ("atomstream.server", "atomstream", "aiohttp.server", "asyncio"):
        caplog.clear()
        logger = get_logger(name)
        try:
            try:
                raise ValueError(f"bad line X-API-KEY: {KEY}")
            except ValueError as error:
                raise RuntimeError("while reading") from error
        except RuntimeError:
            logger.exception("failed for %s with %r", "127.0.0.1", {"Cookie": KEY}, stack_info=True)
        (record,) = caplog.records
        shown = logging.Formatter("%(message)s").format(record)
        assert KEY not in shown + repr(record.__dict__)
        assert "while reading" in shown
        assert "127.0.0.1" in shown
        assert record.levelno == logging.ERROR


def test_a_record_that_does_not_format_shows_no_arguments(caplog: pytest.LogCaptureFixture) -> None:
    """Logging prints the arguments of such a record on stderr; they may be secrets."""
    get_logger("atomstream").warning("%d", KEY)
    assert KEY not in caplog.text


def test_no_module_makes_a_logger_without_the_filter() -> None:
    """Every module-level logger of the package comes from get_logger()."""
    allowed = {"config.py", "console.py", "settings.py", "log_privacy.py", "protocol_log.py"}
    allowed |= {"genicam.py", "names.py"}  # they set the levels of other libraries
    for path in Path(atomstream.__file__).parent.rglob("*.py"):
        text = path.read_text("utf-8")
        if "getLogger" not in text:  # to parse all modules takes seconds
            continue
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        names = {ast.unparse(call.func) for call in calls}
        assert "logging.getLogger" not in names or path.name in allowed, path
