"""What a server said in an error's body and headers, cut to what a person can use; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

MAX_SAID: Final = 300
MAX_RETRY_AFTER_S: Final = 3600.0
"""A longer wish is a mistake of the server's; an hour also bounds what a wrong date can do."""
_S3_CODE = re.compile(r"<Code>\s*([A-Za-z0-9]{1,64})\s*</Code>")
_S3_MESSAGE = re.compile(r"<Message>([^<]{0,500})</Message>")


@dataclass(frozen=True, slots=True)
class Said:
    """``text`` for a sentence, ``detail`` the JSON under ``"detail"`` (or all of it), ``code`` S3's own."""

    text: str
    detail: Any
    code: str = ""

    @classmethod
    def read(cls, body: bytes, secrets: tuple[str, ...]) -> Said:
        """Read an error's body; every one of ``secrets`` in it is replaced."""
        text = body.decode("utf-8", "replace")
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        if text.lstrip().startswith("<"):
            return cls._from_markup(text)
        try:
            detail = json.loads(text)
        except (ValueError, RecursionError):
            return cls(_tidy(text), _tidy(text) or None)
        if isinstance(detail, dict):
            detail = detail.get("detail", detail)
        return cls(_tidy(_sentence(detail)), detail)

    @classmethod
    def _from_markup(cls, text: str) -> Said:
        # S3's XML repeats the signed request in other elements; a web page says nothing a log should hold.
        code, message = _S3_CODE.search(text), _S3_MESSAGE.search(text)
        found = [_tidy(match[1]) for match in (code, message) if match]
        return cls(": ".join(found), None, code[1] if code else "")

    def quoted(self) -> str:
        """`` (...)`` to follow a status, or nothing."""
        return f" ({self.text.rstrip('.')})" if self.text else ""


def _sentence(detail: Any) -> str:
    if isinstance(detail, dict):
        for key in ("message", "msg", "error"):
            if isinstance(detail.get(key), str):
                return str(detail[key])
    return detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False)


def _tidy(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_SAID]).split())
    return line if len(line) <= MAX_SAID else line[: MAX_SAID - 1] + "…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server wishes to be left alone for, at most an hour; None where it has no wish.

    A date is counted from the reply's own ``Date``, so that this host's clock does not matter
    (RFC 9110, 10.2.3).
    """
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    seconds = (
        float(value) if re.fullmatch(r"\d{1,18}(\.\d{1,18})?", value) else _seconds_until(value, headers)
    )
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _seconds_until(date: str, headers: Mapping[str, str]) -> float | None:
    then, now = _date(date), _date(headers.get("Date", ""))
    return None if then is None else (then - (now or datetime.now(UTC))).total_seconds()


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
