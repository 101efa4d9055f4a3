"""Upload URLs: short-lived permissions to PUT one chunk, signed by this server and checked by it alone.

The ticket (which stream, which chunk, its shape, its stamps, until when) travels inside the URL; the HMAC
covers the method, the path and the whole ticket, so none of it can be changed on the way, and nothing has to
be remembered between the two requests: a URL stays good over a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from atomstream.server.archive.records import UploadClaims
from atomstream.server.http.responses import HttpError

SECRET_FILE = "signing.key"


class Permit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a signed URL permits: to PUT the chunk of ``ticket`` until ``expires``, in s since the epoch."""

    ticket: UploadClaims
    expires: float


class UrlSigner:
    """Makes and checks upload URLs under one secret; ``now`` is the wall clock, in s."""

    def __init__(self, secret: bytes, now: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._now = now

    def sign(self, ticket: UploadClaims, ttl_s: float) -> str:
        """Path and query of a URL that permits ``ticket``'s upload for ``ttl_s`` from now."""
        permit = Permit(ticket=ticket, expires=self._now() + ttl_s)
        packed = base64.urlsafe_b64encode(msgspec.json.encode(permit)).decode()
        path = upload_path(ticket)
        return f"{path}?{urlencode({'ticket': packed, 'signature': self._mark('PUT', path, packed)})}"

    def check(self, request: web.Request) -> UploadClaims:
        """The ticket of a PUT's URL.

        Raises:
            RefusedError: 403, not ours, changed on the way, or expired; a fresh URL helps.
        """
        packed = request.query.get("ticket", "")
        given = request.query.get("signature", "")
        mark = self._mark(request.method, request.path, packed)
        if not hmac.compare_digest(mark.encode(), given.encode("utf-8", "surrogateescape")):
            raise HttpError(403, "The signature of this upload URL is wrong; ask for a fresh URL.")
        permit = _unpack(packed)
        if self._now() > permit.expires:
            raise HttpError(403, "This upload URL has expired; ask for a fresh one.")
        return permit.ticket

    def _mark(self, method: str, path: str, packed: str) -> str:
        message = "\n".join((method, path, packed)).encode("utf-8", "surrogateescape")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def upload_path(ticket: UploadClaims) -> str:
    """Where the chunk is PUT; stream and index stand in it for whoever reads the access log."""
    return f"/upload/{ticket.data_id}/{ticket.index}"


def _unpack(packed: str) -> Permit:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(packed), type=Permit)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        # Only after a change of version: the signature was right.
        raise HttpError(
            403, "This upload URL is of another version of the server; ask for a fresh one."
        ) from None
