"""Error bodies and headers of servers, reduced to short and safe texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.service.error_mapping import MAX_RETRY_AFTER_S, MAX_TEXT, ErrorBody, retry_after_s


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "999999999"}, MAX_RETRY_AFTER_S),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "soon"}, None),
        (
            {
                "Retry-After": "Fri, 01 Nov 2030 10:00:20 GMT",
                "Date": "Fri, 01 Nov 2030 10:00:00 GMT",
            },
            20.0,
        ),
        ({"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}, 0.0),
        ({"Retry-After": "Thu, 01 Jan 2099 00:00:00 GMT"}, MAX_RETRY_AFTER_S),
    ],
)
def test_retry_after_seconds_and_dates(headers: dict[str, str], seconds: float | None) -> None:
    """Retry-After is seconds or a date. A date is compared with the server's clock; the limit is one hour."""
    assert retry_after_s(headers) == seconds


@given(st.text())
def test_any_retry_after_is_bounded(value: str) -> None:
    """Any header gives None or 0..3600 s."""
    seconds = retry_after_s({"Retry-After": value})
    assert seconds is None or 0.0 <= seconds <= MAX_RETRY_AFTER_S


def test_secrets_are_removed() -> None:
    """If a server repeats the key or the signature, neither text nor detail contains it."""
    body = json.dumps({"detail": {"message": "bad key atst_secret", "at": "?sig=abc"}}).encode()
    error_body = ErrorBody.parse(body, ("atst_secret", "sig=abc", ""))
    assert error_body.text == "bad key ***"
    assert error_body.detail == {"message": "bad key ***", "at": "?***"}


def test_s3_error_is_read_for_code_and_message_only() -> None:
    """Code and message are read from S3's XML; the repeated signed request is not."""
    xml = b"<?xml?><Error><Code>RequestTimeout</Code><Message>Idle.</Message><StringToSign>S</StringToSign>"
    error_body = ErrorBody.parse(xml, ())
    assert (error_body.code, error_body.text) == ("RequestTimeout", "RequestTimeout: Idle.")
    assert error_body.quoted() == " (RequestTimeout: Idle)"


def test_web_page_is_ignored() -> None:
    """The web page of a proxy is not part of a message."""
    assert ErrorBody.parse(b"<html><body>Blocked by ACME</body>", ()).quoted() == ""


@given(st.binary(max_size=5000))
def test_any_body_makes_one_short_line(body: bytes) -> None:
    """Any bytes give one printable line of at most 300 characters."""
    text = ErrorBody.parse(body, ("key",)).text
    assert len(text) <= MAX_TEXT
    assert text.isprintable()


def test_deep_json_is_only_text() -> None:
    """JSON nested too deeply to be parsed is quoted as text."""
    assert ErrorBody.parse(b"[" * 60_000, ()).text.startswith("[[[")
