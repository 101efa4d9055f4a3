"""Maps HTTP replies and network errors to the exceptions of :mod:`atomstream.errors`. The only place that does so.

Each message names the call, the server, its answer, and what to do. It never contains the API key or the query of an
upload URL (its signature), even if the server repeats them.
"""

from __future__ import annotations

import contextlib
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
    UntrustedServerError,
    UrlExpiredError,
)
from atomstream.system.log_privacy import HIDDEN, redact

_BUSY: Final = frozenset({408, 425, 429})
"""4xx statuses that may pass."""

_NEVER: Final = frozenset({501, 505})
"""5xx statuses that do not pass."""

_STALLED_CODES: Final = frozenset({"RequestTimeout"})
"""S3 codes with status 400 for an upload that was too slow."""

_EXPIRED_CODES: Final = frozenset({"ExpiredToken", "RequestExpired"})
"""S3 codes with status 400 (not 403): the temporary credentials that signed the URL have expired."""

_ADVICE: Final[dict[type[ServiceError], str]] = {
    ServerBusyError: "This may be temporary: the same request can be sent again.",
    UrlExpiredError: "A new upload URL can be requested.",
    AuthenticationError: (
        "Check the API key (api_key=... or ATOMSTREAM_API_KEY), and that it belongs to this server and "
        "may do this. Accepted frames are kept."
    ),
    NotFoundError: "Check that the endpoint is the service's own address and that the named object exists.",
    ConflictError: "The server already has something else under this name or index.",
    RejectedError: "The same request would be refused again.",
}

MAX_TEXT: Final = 300
"""The longest part of an error body that is quoted, in characters."""

MAX_RETRY_AFTER_S: Final = 3600.0
"""The longest accepted ``Retry-After`` in seconds. It also bounds the effect of a wrong date."""

_WORD: Final = re.compile(r"[A-Za-z]{1,11}|.{1,3}")

_S3_CODE = re.compile(r"<Code>\s*([A-Za-z0-9]{1,64})\s*</Code>")

_S3_MESSAGE = re.compile(r"<Message>([^<]{0,500})</Message>")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request, as error messages describe it.

    ``what`` completes "Could not ...". ``server`` is the address without a query. ``secrets`` are removed from all
    texts of the server. ``upload`` is True for a PUT to a signed URL, False for a call of the API. ``elsewhere`` is a
    sentence about an upload URL of an atomstream server that does not begin with the endpoint (:func:`elsewhere`).
    """

    what: str
    server: str
    secrets: tuple[str, ...]
    upload: bool = False
    elsewhere: str = ""

    def advice(self, usual: str) -> str:
        """``usual``, and the sentence about the upload URL, if there is one."""
        return f"{usual} {self.elsewhere}".rstrip()


_UPLOAD_URL: Final = re.compile(r"/upload/[0-9a-f-]{36}/\d+\?ticket=")
"""The end of an upload URL of an atomstream server."""


def is_own_upload(url: str) -> bool:
    """Whether ``url`` is an upload URL of an atomstream server."""
    return _UPLOAD_URL.search(url) is not None


def elsewhere(endpoint: str, url: str) -> str:
    """A sentence if ``url`` is an upload URL of an atomstream server that does not begin with the client's endpoint.

    Then the server is not configured with the address under which this client reaches it: it is behind a proxy, and its
    setting for that is missing or wrong.
    """
    match = _UPLOAD_URL.search(url)
    if match is None or url.startswith(f"{endpoint}/upload/"):
        return ""
    return (
        f"The server expects uploads at {url[: match.start()]}, but this client reaches it at {endpoint}. If the first "
        f"address does not lead to it from here, start the server with --public-url {endpoint} (public_url in its "
        "configuration file). The chunk is kept."
    )


def from_reply(context: RequestContext, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The exception for a reply with an error status."""
    error_body = ErrorBody.parse(body, context.secrets)
    kind = _kind(status, error_body.code, upload=context.upload)
    sentence = f"Could not {context.what}: {context.server} answered HTTP {status}{error_body.quoted()}."
    facts: dict[str, Any] = {
        "status": status,
        "detail": error_body.detail,
        "retry_after_s": retry_after_s(headers),
    }
    if status == 407:
        # This is the answer of the proxy: the request has not reached the server.
        return ConnectionFailedError(
            f"{sentence} The proxy requires a login: set it in HTTPS_PROXY, or name the server in NO_PROXY.",
            never_sent=True,
            **facts,
        )
    if context.elsewhere and not error_body.is_of_atomstream:
        return misdirected(context, f"{context.server} answered HTTP {status}", **facts)
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


def misdirected(context: RequestContext, cause: str, **facts: Any) -> ConnectionFailedError:
    """The exception for an upload that was answered by another program than the server; ``cause`` is a clause."""
    return ConnectionFailedError(
        f"Could not {context.what}: {cause}, which is not the answer of an atomstream server. {context.elsewhere}",
        never_sent=True,
        **facts,
    )


def _redirect_advice(headers: Mapping[str, str]) -> str:
    to = ""
    with contextlib.suppress(ValueError):  # not a URL
        parts = urlsplit(headers.get("Location", ""))
        to = f" to {_one_line(f'{parts.scheme}://{parts.hostname}')}" if parts.hostname else ""
    return (
        f"It redirects{to}; redirects are not followed, so that key and frames are sent to the configured "
        "server only. Give the final address as endpoint."
    )


def invalid_reply(context: RequestContext, status: int, why: str) -> ServerBusyError:
    """The exception for a reply with a success status but an invalid body."""
    return ServerBusyError(
        f"Could not {context.what}: {context.server} answered HTTP {status}, but not with what was asked for "
        f"({why}). "
        + context.advice(
            "Check that the endpoint is the service's own address, not a web page or a proxy's."
        ),
        status=status,
    )


def from_exception(context: RequestContext, error: Exception) -> ServiceError:
    """The exception for an error of the HTTP library or of the operating system."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return not_connected(context, f"the proxy answered {error.status} {error.message}")
    if isinstance(error, aiohttp.ClientResponseError):
        return invalid_reply(context, error.status, "it is not HTTP")
    if isinstance(error, _CERTIFICATE_ERRORS):
        return UntrustedServerError(
            _no_connection(context, _certificate_cause(error), _certificate_advice(error)), never_sent=True
        )
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return not_connected(context, _connect_cause(error))
    return ConnectionFailedError(
        f"Could not {context.what}: {_break_cause(error)} {context.server}. "
        + context.advice("Whether the request arrived is not known.")
    )


def stalled(context: RequestContext, seconds: float) -> ConnectionFailedError:
    """The exception for an upload of which no byte was sent for ``seconds``."""
    return ConnectionFailedError(
        f"Could not {context.what}: nothing moved towards {context.server} for {seconds:g} s. "
        + context.advice("Check the network's uplink; the chunk is kept.")
    )


def not_connected(
    context: RequestContext,
    cause: str,
    advice: str = "Check the endpoint, the network, and that the server runs.",
) -> ConnectionFailedError:
    """The exception for a request that was not sent, because there is no connection; ``cause`` is a clause."""
    return ConnectionFailedError(_no_connection(context, cause, advice), never_sent=True)


def _no_connection(context: RequestContext, cause: str, advice: str) -> str:
    return f"Could not {context.what}: no connection to {context.server} ({cause}). {context.advice(advice)}"


def _connect_cause(error: Exception) -> str:
    # Messages of the HTTP library contain whole URLs, including the signature of an upload URL.
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is unknown to the DNS"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "it does not answer"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "the TLS handshake failed: is it an https server?"
    return _system_reason(error)


_CERTIFICATE_ERRORS: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    ssl.CertificateError,
)


def _certificate_cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return f"its TLS certificate is not the pinned one, but has the SHA-256 {error.got.hex()}"
    inner = getattr(error, "certificate_error", error)
    reason = str(getattr(inner, "verify_message", "")) or "verification failed"
    return f"its TLS certificate is not trusted: {reason}"


def _certificate_advice(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return (
            "If the server has a new certificate, which it shows at its start and on its page, set "
            "ATOMSTREAM_TLS_FINGERPRINT to it. Otherwise somebody may be between you and the server. Nothing was sent."
        )
    return (
        "If it is the right server, set SSL_CERT_FILE to a file with the certificate of its authority (PEM), or "
        "ATOMSTREAM_TLS_FINGERPRINT to the SHA-256 that an atomstream server prints at its start. Nothing was sent."
    )


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


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The body of an error reply.

    ``text`` is a short text for messages. ``detail`` is the JSON under ``"detail"``, or all of it. ``code`` is the
    error code of S3. ``is_of_atomstream`` is True for the form of our server's errors.
    """

    text: str
    detail: Any
    code: str = ""
    is_of_atomstream: bool = False

    @classmethod
    def parse(cls, body: bytes, secrets: tuple[str, ...]) -> ErrorBody:
        """Parse the body of an error. All ``secrets`` in it are replaced by ``***``.

        A key that is only a short word is not replaced: the key "wrong" would be removed from "The API key is wrong".
        """
        text = body.decode("utf-8", "replace")
        for secret in secrets:
            if secret and not _WORD.fullmatch(secret):
                text = text.replace(secret, HIDDEN)
        text = redact(text)
        if text.lstrip().startswith("<"):
            return cls._from_markup(text)
        try:
            detail = json.loads(text)
        except (ValueError, RecursionError):
            return cls(_one_line(text), _one_line(text) or None)
        own = isinstance(detail, dict) and isinstance(detail.get("detail"), str)
        if isinstance(detail, dict):
            detail = detail.get("detail", detail)
        return cls(_one_line(_message(detail)), detail, is_of_atomstream=own)

    @classmethod
    def _from_markup(cls, text: str) -> ErrorBody:
        # Other elements of S3's XML repeat the signed request. The text of a web page is not useful in a log.
        code, message = _S3_CODE.search(text), _S3_MESSAGE.search(text)
        parts = [_one_line(match[1]) for match in (code, message) if match]
        return cls(": ".join(parts), None, code[1] if code else "")

    def quoted(self) -> str:
        """The text in parentheses, to be put after a status; empty if there is none."""
        return f" ({self.text.rstrip('.')})" if self.text else ""


def _message(detail: Any) -> str:
    if isinstance(detail, dict):
        for key in ("message", "msg", "error"):
            if isinstance(detail.get(key), str):
                return str(detail[key])
    return detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False)


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT]).split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The ``Retry-After`` header in seconds, at most one hour; None if there is none.

    A date is compared with the ``Date`` of the same reply, so the clock of this host does not matter
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
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
