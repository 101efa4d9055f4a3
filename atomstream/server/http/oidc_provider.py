"""The requests to an OpenID Connect provider: its metadata, its keys, the exchange of a code, and the ID token.

The authorization code flow with PKCE (RFC 7636), as OpenID Connect Core 1.0 describes it. Signatures are checked by
joserfc. Everything that the provider sends is bounded in time and size.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import aiohttp

from atomstream.errors import AtomstreamError, ConfigError
from atomstream.server.oidc_settings import OidcSettings, check_address
from atomstream.system.log_privacy import get_logger

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

log = get_logger("atomstream.server")

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that are accepted: none with a shared secret, and never ``none``."""
REPLY_S: Final = 10.0
MAX_REPLY: Final = 1 << 20
METADATA_S: Final = 3600.0
"""How long metadata and keys of the provider are used without asking again."""
KEYS_RETRY_S: Final = 30.0
"""Shortest time between two requests of its keys because a token has an unknown one."""
METADATA_RETRY_S: Final = 2.0
"""Shortest time between two requests of its metadata after one has failed; until then the failure is the answer."""
MAX_TIME_S: Final = 1e11
"""Latest Unix time of a token in s; it is in the year 5138."""
MAX_KEYS: Final = 100
"""Most keys of a provider that are used; real ones have two to ten."""
MAX_NUMBER_CHARS: Final = 4096
"""Longest number of a key in base64; one of RSA with 16384 bits has 2731."""
LEEWAY_S: Final = 60.0
"""Difference of the clocks of provider and server that is tolerated."""


class OidcError(AtomstreamError):
    """A sign-in failed; the message is for the person. ``status`` is that of the reply."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Contact:
    """What a provider answered: the response types of its metadata, the number of its keys, and its clock.

    ``clock_difference_s`` is its clock minus that of this computer, to about a second; None if it sent no time.
    """

    response_types: tuple[str, ...]
    keys: int
    clock_difference_s: float | None


class OidcProvider:
    """One provider. Used in the server's loop. ``clock`` is Unix time in s."""

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._clock = clock
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._read_at = self._keys_at = self._failed_at = 0.0
        self._failure: OidcError | None = None
        self._lock = asyncio.Lock()
        self._clock_difference_s: float | None = None

    async def contact(self) -> Contact:
        """Read its metadata and keys; raises OidcError, whose cause is the error of the connection if it has one."""
        metadata = await self._read_metadata()
        types = metadata.get("response_types_supported", ["code"])
        keys = await self._read_keys(again=False)
        listed = tuple(map(str, types)) if isinstance(types, list) else ()
        return Contact(listed, len(keys.keys), self._clock_difference_s)

    async def address(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """The address of the provider to which the browser is sent."""
        metadata = await self._read_metadata()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        base = str(metadata["authorization_endpoint"])
        return f"{base}{'&' if '?' in base else '?'}{urlencode(query)}"

    async def claims(self, code: str, redirect_uri: str, nonce: str, verifier: str) -> dict[str, Any]:
        """The claims about the person for whom the provider made ``code``.

        Raises:
            OidcError: the provider refused the code, or its token is not valid for this sign-in.
        """
        tokens = await self._exchange(code, redirect_uri, verifier)
        id_token = tokens.get("id_token")
        if not isinstance(id_token, str):
            raise OidcError(
                502, "The provider sent no ID token; is the scope openid allowed for this client?"
            )
        claims = await self._verified(id_token)
        self._check(claims, nonce)
        return await self._with_user_info(claims, tokens.get("access_token"))

    async def _with_user_info(self, claims: dict[str, Any], access_token: Any) -> dict[str, Any]:
        """``claims``, completed by those that the provider gives on request only."""
        settings, endpoint = self.settings, self._metadata.get("userinfo_endpoint")
        wanted = {
            settings.name_claim,
            settings.role_claim.split(".")[0],
            settings.projects_claim.split(".")[0],
        }
        if wanted <= claims.keys() or not isinstance(endpoint, str) or not isinstance(access_token, str):
            return claims
        more = await self._request("GET", endpoint, headers={"Authorization": f"Bearer {access_token}"})
        if more.get("sub") != claims["sub"]:
            raise OidcError(502, "The provider answered about another person than the one who signed in.")
        return {**more, **claims}

    # -- the ID token ----------------------------------------------------------------------------------------

    async def _verified(self, id_token: str) -> dict[str, Any]:
        """The claims of a token that is signed by one of the provider's keys."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        for again in (False, True):
            keys = await self._read_keys(again=again)
            try:
                token = jwt.decode(id_token, keys, algorithms=list(ALGORITHMS))
            except (JoseError, ValueError, TypeError, KeyError) as error:
                # The provider may have changed its keys since they were read.
                if again or self._clock() - self._keys_at < KEYS_RETRY_S:
                    log.warning("the ID token of a sign-in is not valid: %s", type(error).__name__)
                    raise OidcError(
                        401, "The provider's ID token has no valid signature. Nobody was signed in."
                    ) from None
            else:
                if isinstance(token.claims, dict):
                    return dict(token.claims)
                raise OidcError(401, "The provider's ID token has no claims. Nobody was signed in.")
        raise AssertionError

    def _check(self, claims: Mapping[str, Any], nonce: str) -> None:
        """Whether the token is for this server, this sign-in and this moment; raises OidcError."""
        client, now = self.settings.client_id, self._clock()
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        subject = claims.get("sub")
        wrong = ""
        if claims.get("iss") != self.settings.issuer:
            wrong = "was made by another provider (iss)"
        elif client not in audiences or claims.get("azp", client) != client:
            wrong = "was made for another program (aud)"
        elif not _is_time(claims.get("exp")) or claims["exp"] + LEEWAY_S <= now:
            wrong = "has expired (exp); are the clocks of provider and server right?"
        elif not _is_time(claims.get("iat")) or claims["iat"] - LEEWAY_S > now:
            wrong = "was made in the future (iat); are the clocks of provider and server right?"
        elif "nbf" in claims and (not _is_time(claims["nbf"]) or claims["nbf"] - LEEWAY_S > now):
            wrong = "is not valid yet (nbf)"
        elif claims.get("nonce") != nonce:
            wrong = "belongs to another sign-in (nonce)"
        elif not isinstance(subject, str) or not subject:
            wrong = "names nobody (sub)"
        if wrong:
            raise OidcError(401, f"The provider's ID token {wrong}. Nobody was signed in.")

    # -- requests to the provider ----------------------------------------------------------------------------

    async def _exchange(self, code: str, redirect_uri: str, verifier: str) -> dict[str, Any]:
        metadata, settings = await self._read_metadata(), self.settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        methods = metadata.get("token_endpoint_auth_methods_supported")
        if not isinstance(methods, list):
            methods = ["client_secret_basic"]
        if settings.client_secret is None:
            form["client_id"] = settings.client_id
        elif "client_secret_basic" in methods or "client_secret_post" not in methods:
            pair = f"{quote(settings.client_id, safe='')}:{quote(settings.client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": settings.client_id, "client_secret": settings.client_secret}
        return await self._request("POST", str(metadata["token_endpoint"]), data=form, headers=headers)

    async def _read_metadata(self) -> dict[str, Any]:
        """The metadata. Anybody can ask for them by beginning a sign-in: so also a failure is the answer to many."""
        async with self._lock:
            if not self._metadata or self._clock() - self._read_at > METADATA_S:
                failure = self._failure
                if failure is not None and 0 <= self._clock() - self._failed_at < METADATA_RETRY_S:
                    raise OidcError(failure.status, str(failure)) from failure.__cause__
                try:
                    self._metadata = await self._request_metadata()
                except OidcError as error:
                    self._failure, self._failed_at = error, self._clock()
                    raise
                self._failure, self._read_at = None, self._clock()
            return self._metadata

    async def _request_metadata(self) -> dict[str, Any]:
        issuer = self.settings.issuer
        found = await self._request("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise OidcError(
                502,
                f"The provider calls itself {str(found.get('issuer'))[:200]!r}, and this server's setting "
                f"oidc.issuer is {issuer!r}. They must be equal.",
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            self._check_endpoint(name, found.get(name))
        if "userinfo_endpoint" in found:
            self._check_endpoint("userinfo_endpoint", found["userinfo_endpoint"])
        return found

    @staticmethod
    def _check_endpoint(name: str, address: Any) -> None:
        try:
            check_address(f"The provider's {name}", str(address))
        except ConfigError as error:
            raise OidcError(502, str(error)) from None

    async def _read_keys(self, *, again: bool) -> KeySet:
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        metadata = await self._read_metadata()
        async with self._lock:
            if self._keys is None or again or self._clock() - self._keys_at > METADATA_S:
                found = await self._request("GET", str(metadata["jwks_uri"]))
                listed = found.get("keys")
                # A key that is meant for encryption, or that can't be read, is not a reason to refuse the others.
                signing = [one for one in listed if _is_signing_key(one)] if isinstance(listed, list) else []
                try:
                    self._keys = await asyncio.to_thread(KeySet.import_key_set, {"keys": signing[:MAX_KEYS]})
                except (JoseError, ValueError, TypeError, KeyError):
                    raise OidcError(502, "The provider's keys can't be read.") from None
                self._keys_at = self._clock()
            return self._keys

    async def _request(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        """A JSON object of the provider; raises OidcError."""
        timeout = aiohttp.ClientTimeout(total=REPLY_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True, raise_for_status=False) as session,
                session.request(method, url, allow_redirects=False, **more) as reply,
            ):
                body = b""
                async for piece in reply.content.iter_any():
                    body += piece
                    if len(body) > MAX_REPLY:
                        raise OidcError(502, "The provider's answer is too long.")
                self._note_clock(reply.headers.get("Date", ""))
                return self._parsed(reply.status, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("the OpenID Connect provider can't be reached: %s", type(error).__name__)
            raise OidcError(
                503, f"The provider of {self.settings.name} can't be reached. Try again, or use an API key."
            ) from error

    def _note_clock(self, date: str) -> None:
        with suppress(ValueError, TypeError, OverflowError):
            self._clock_difference_s = parsedate_to_datetime(date).timestamp() - self._clock()

    @staticmethod
    def _parsed(status: int, body: bytes) -> dict[str, Any]:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if status == 200 and isinstance(found, dict):
            return found
        if isinstance(found, dict) and found.get("error") == "invalid_grant":
            raise OidcError(
                401,
                "The provider does not accept this sign-in: it was used already, or took too long. Sign in again.",
            )
        reason = found.get("error") if isinstance(found, dict) else None
        shown = (
            f" ({reason})" if isinstance(reason, str) and len(reason) <= 64 and reason.isprintable() else ""
        )
        raise OidcError(502, f"The provider answered {status}{shown}. Nobody was signed in.")


def _is_time(value: Any) -> bool:
    """Whether it is a Unix time in s; False for NaN and for numbers that are not dates."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_TIME_S


def _is_signing_key(key: Any) -> bool:
    return (
        isinstance(key, dict)
        and key.get("use", "sig") == "sig"
        and key.get("kty") in ("RSA", "EC", "OKP")
        and all(len(str(key.get(number, ""))) <= MAX_NUMBER_CHARS for number in ("n", "e", "x", "y"))
    )
