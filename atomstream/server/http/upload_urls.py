"""Signed upload URLs: short-lived permissions to PUT one chunk.

The claims (stream, chunk, shape, capture times, expiry) are in the URL's query. An HMAC covers method, path and
claims, so a client can't change them. The server stores nothing between the two requests, so a URL stays valid after
a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from atomstream.protocol import UPLOAD_PATH
from atomstream.server.archive.records import UploadClaims
from atomstream.server.documents import Documents
from atomstream.server.http.responses import HttpError

SECRET_FILE = "signing.key"


_SECRET_BYTES: Final = 32


def shared_secret(documents: Documents) -> bytes:
    """The secret that the servers of a cluster sign with; the first one makes it. Blocks."""

    def revise(content: bytes | None) -> bytes | None:
        return None if content and len(content) >= _SECRET_BYTES else secrets.token_bytes(_SECRET_BYTES)

    secret = documents.change(SECRET_FILE, revise)
    assert secret is not None
    return secret


class Permit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a signed URL: ``ticket`` may be uploaded until ``expires``, in s since the epoch.

    ``owner`` is the id of the API key that asked for it: the URL is valid no longer than the key.
    """

    ticket: UploadClaims
    expires: float
    owner: str = ""


class UrlSigner:
    """Signs and checks upload URLs with one secret. ``now`` is the wall clock in s."""

    def __init__(self, secret: bytes, now: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._now = now

    def sign(self, ticket: UploadClaims, ttl_s: float, owner: str = "") -> str:
        """Path and query of a URL that permits the upload of ``ticket`` for ``ttl_s`` seconds from now."""
        permit = Permit(ticket=ticket, expires=self._now() + ttl_s, owner=owner)
        packed = base64.urlsafe_b64encode(msgspec.json.encode(permit)).decode()
        path = upload_path(ticket)
        return f"{path}?{urlencode({'ticket': packed, 'signature': self._signature('PUT', path, packed)})}"

    def check(self, request: web.Request) -> Permit:
        """The permit in the URL of a PUT request.

        Raises:
            HttpError: 403 if the signature is wrong or the URL has expired. A new URL helps.
        """
        packed = request.query.get("ticket", "")
        presented = request.query.get("signature", "")
        # Not request.path: it may begin with the prefix of a proxy.
        path = UPLOAD_PATH.format(**request.match_info)
        signature = self._signature(request.method, path, packed)
        if not hmac.compare_digest(signature.encode(), presented.encode("utf-8", "surrogateescape")):
            raise HttpError(403, "The signature of this upload URL is wrong; request a new URL.")
        permit = _unpack(packed)
        if self._now() > permit.expires:
            raise HttpError(403, "This upload URL has expired; request a new one.")
        return permit

    def mark(self, purpose: str, text: str) -> str:
        """A signature of ``text`` for another ``purpose`` than an upload, in hexadecimal digits."""
        return self._signature(f"mark {purpose}", "", text)

    def _signature(self, method: str, path: str, packed: str) -> str:
        message = "\n".join((method, path, packed)).encode("utf-8", "surrogateescape")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def upload_path(ticket: UploadClaims) -> str:
    """The path of a chunk's upload. It contains stream and index, so that they are in the access log."""
    return UPLOAD_PATH.format(data_id=ticket.data_id, index=ticket.index)


def _unpack(packed: str) -> Permit:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(packed), type=Permit)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        # The signature is right, so another version of the server made the URL.
        raise HttpError(
            403, "This upload URL was made by another version of the server; request a new one."
        ) from None
