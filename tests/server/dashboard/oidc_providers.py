"""OpenID Connect providers for tests: a real one in its own process, and one whose tokens a test chooses."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def provider_process(*users: dict[str, Any]) -> Iterator[str]:
    """Run ``oidc-provider-mock`` with these users; gives its issuer."""
    port = free_port()
    words = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    for user in users:
        words += ["--user-claims", json.dumps(user)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, "the provider has ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def approve(session: aiohttp.ClientSession, address: str, subject: str) -> str:
    """Sign in as ``subject`` at the real provider; the address to which it sends the browser back."""
    async with session.post(address, data={"sub": subject}, allow_redirects=False) as reply:
        assert reply.status in (302, 303), await reply.text()
        return reply.headers["Location"]


class ScriptedProvider:
    """A provider that checks PKCE, and whose claims, keys and answers a test changes.

    While ``answering`` is not set, codes are not answered.
    """

    def __init__(self) -> None:
        self.more_keys: list[Any] = []
        self.keys = [RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})]
        self.signing = self.keys[0]
        self.claims: dict[str, Any] = {}
        self.user_info: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.metadata: dict[str, Any] = {}
        self.headers: dict[str, str] = {}
        self.token_reply: web.Response | None = None
        self.metadata_requests = self.key_requests = self.token_requests = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self.issuer = ""
        self._codes: dict[str, dict[str, str]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedProvider]:
        """Answer requests for as long as the block lasts."""
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._metadata)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_post("/token", self._token)
        app.router.add_get("/userinfo", self._user_info)
        async with TestServer(app) as server:
            self.issuer = str(server.make_url("")).rstrip("/")
            yield self

    def approve(self, address: str) -> str:
        """Sign in: the address to which the browser is sent back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = secrets.token_urlsafe(8)
        self._codes[code] = query
        return f"{query['redirect_uri']}?code={code}&state={query['state']}"

    async def _metadata(self, _request: web.Request) -> web.Response:
        self.metadata_requests += 1
        known = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
        }
        return web.json_response(known | self.metadata, headers=self.headers)

    async def _jwks(self, _request: web.Request) -> web.Response:
        self.key_requests += 1
        known = KeySet(list(self.keys)).as_dict(private=False)["keys"]
        return web.json_response({"keys": [*known, *self.more_keys]}, headers=self.headers)

    async def _user_info(self, _request: web.Request) -> web.Response:
        return web.json_response(self.user_info)

    async def _token(self, request: web.Request) -> web.Response:
        self.token_requests += 1
        await self.answering.wait()
        form = await request.post()
        begun = self._codes.pop(str(form.get("code")), None)
        digest = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if begun is None or begun["code_challenge"] != challenge:
            return web.json_response({"error": "invalid_grant"}, status=400)
        if self.token_reply is not None:
            return self.token_reply
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": begun["client_id"],
            "sub": "0815",
            "iat": now,
            "exp": now + 300,
            "nonce": begun["nonce"],
            "preferred_username": "anna",
            "groups": ["mbe"],
            **self.claims,
        }
        header = {"alg": self.algorithm, "kid": self.signing.kid}
        known = {name: value for name, value in claims.items() if value is not None}
        token = jwt.encode(header, known, self.signing, algorithms=[self.algorithm])
        return web.json_response({"access_token": "x", "token_type": "Bearer", "id_token": token})
