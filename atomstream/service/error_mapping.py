"""The only mapping from what HTTP did to what atomstream raises (promises P15, P16).

A sentence for a person comes with each: which call, which server, what it said, what to do. Neither the key
nor an upload URL's query (its signature) is ever in it, even where the server echoes them.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from atomstream.errors import (
    AuthenticationError,
    ConflictError,
    ConnectionFailedError,
    NotFoundError,
    RejectedError,
    ServerBusyError,
    ServiceError,
    UrlExpiredError,
)

# What a server said in an error's body and headers, cut to what a person can use; pure.

MAX_SAID: Final = 300

MAX_RETRY_AFTER_S: Final = 3600.0
"""A longer wish is a mistake of the server's; an hour also bounds what a wrong date can do."""

_S3_CODE = re.compile(r"<Code>\s*([A-Za-z0-9]{1,64})\s*</Code>")

_S3_MESSAGE = re.compile(r"<Message>([^<]{0,500})</Message>")


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """``text`` for a sentence, ``detail`` the JSON under ``"detail"`` (or all of it), ``code`` S3's own."""

    text: str
    detail: Any
    code: str = ""

    @classmethod
    def read(cls, body: bytes, secrets: tuple[str, ...]) -> ErrorBody:
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
    def _from_markup(cls, text: str) -> ErrorBody:
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


_BUSY: Final = frozenset({408, 425, 429})

_NEVER: Final = frozenset({501, 505})

_STALLED_CODES: Final = frozenset({"RequestTimeout"})

# S3 answers 400, not 403, once the temporary credentials that signed the URL are older than the URL.
_EXPIRED_CODES: Final = frozenset({"ExpiredToken", "RequestExpired"})

_ADVICE: Final[dict[type[ServiceError], str]] = {
    ServerBusyError: "That may pass: the same request can be sent again.",
    UrlExpiredError: "A fresh upload URL can be asked for.",
    AuthenticationError: (
        "Check the API key (api_key=... or ATOMSTREAM_API_KEY), and that it belongs to this server and "
        "may do this. Frames already taken are kept."
    ),
    NotFoundError: "Check that the endpoint is the service's own address and that what was named exists.",
    ConflictError: "What the server has already differs from what was sent.",
    RejectedError: "Sent again as it is, it would be refused again.",
}


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request, as its errors tell of it.

    ``what`` completes "Could not ...", ``server`` names the server without a query, ``secrets`` are cut out
    of whatever the server says, and ``upload`` tells a PUT to a signed URL from a call of the API.
    """

    what: str
    server: str
    secrets: tuple[str, ...]
    upload: bool = False


def from_reply(attempt: RequestContext, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error that a reply other than a success stands for."""
    said = ErrorBody.read(body, attempt.secrets)
    kind = _kind(status, said.code, upload=attempt.upload)
    sentence = f"Could not {attempt.what}: {attempt.server} answered HTTP {status}{said.quoted()}."
    facts: dict[str, Any] = {"status": status, "detail": said.detail, "retry_after_s": retry_after_s(headers)}
    if status == 407:
        # The proxy spoke, not the server: the request certainly went no further.
        return ConnectionFailedError(
            f"{sentence} The proxy wants a login: set it in HTTPS_PROXY, or name the server in NO_PROXY.",
            never_sent=True,
            **facts,
        )
    advice = _redirect_advice(headers) if 300 <= status < 400 else _ADVICE[kind]
    return kind(f"{sentence} {advice}", **facts)


def _kind(status: int, code: str, *, upload: bool) -> type[ServiceError]:
    if status in _BUSY or (status >= 500 and status not in _NEVER) or status < 300:
        return ServerBusyError
    if upload and status == 400 and code in _STALLED_CODES:
        return ServerBusyError
    if upload and (status in {401, 403} or (status == 400 and code in _EXPIRED_CODES)):
        return UrlExpiredError
    if status in {401, 403}:
        return AuthenticationError
    if status in {404, 410}:
        return NotFoundError
    return ConflictError if status == 409 else RejectedError


def _redirect_advice(headers: Mapping[str, str]) -> str:
    parts = urlsplit(headers.get("Location", ""))
    to = f" to {parts.scheme}://{parts.hostname}" if parts.hostname else ""
    return (
        f"It redirects{to}; redirects are not followed, so that neither key nor frames go where they were "
        "not meant to. Give the final address as endpoint."
    )


def garbled(attempt: RequestContext, status: int, why: str) -> ServerBusyError:
    """The error for a success whose body can't be what it should be."""
    return ServerBusyError(
        f"Could not {attempt.what}: {attempt.server} answered HTTP {status}, but not with what was asked for "
        f"({why}). Check that the endpoint is the service's own address, not a web page or a proxy's.",
        status=status,
    )


def from_exception(attempt: RequestContext, error: Exception) -> ServiceError:
    """The error that an exception of the HTTP library or the system stands for."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _not_connected(attempt, f"the proxy answered {error.status} {error.message}")
    if isinstance(error, aiohttp.ClientResponseError):
        return garbled(attempt, error.status, "it does not speak HTTP")
    if isinstance(
        error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ssl.CertificateError)
    ):
        return _not_connected(attempt, _connect_cause(error))
    return ConnectionFailedError(
        f"Could not {attempt.what}: {_break_cause(error)} {attempt.server}. "
        "Whether the request arrived is not known."
    )


def stalled(attempt: RequestContext, seconds: float) -> ConnectionFailedError:
    """The error for an upload of which no further piece left in ``seconds``."""
    return ConnectionFailedError(
        f"Could not {attempt.what}: nothing moved towards {attempt.server} for {seconds:g} s. "
        "Check the network's uplink; the chunk is kept."
    )


def _not_connected(attempt: RequestContext, cause: str) -> ConnectionFailedError:
    return ConnectionFailedError(
        f"Could not {attempt.what}: no connection to {attempt.server} ({cause}). "
        "Check the endpoint, the network, and that the server runs.",
        never_sent=True,
    )


def _connect_cause(error: Exception) -> str:
    # The library's own sentences name whole URLs, with the signature of an upload URL in them.
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.CertificateError)):
        return f"its TLS certificate is not trusted: {_certificate_reason(error)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is unknown to the DNS"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "it does not answer"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "the TLS handshake failed: does it speak https?"
    return _system_reason(error)


def _certificate_reason(error: Exception) -> str:
    inner = getattr(error, "certificate_error", error)
    return str(getattr(inner, "verify_message", "")) or "verification failed"


def _break_cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time from"
    if isinstance(error, OSError) and error.errno is not None:
        return f"the connection broke ({_system_reason(error)}) to"
    return "the connection broke to"


def _system_reason(error: Exception) -> str:
    inner = getattr(error, "os_error", error)
    reason = getattr(inner, "strerror", None)
    return str(reason).lower() if reason else type(inner).__name__
