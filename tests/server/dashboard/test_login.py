"""Login of browsers: cookies for keys, nothing without a session, and no request made by another site."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from atomstream.pages.static_files import DASHBOARD, load_files
from atomstream.record.web.app import STATIC as RECORDER
from atomstream.server.dashboard.pages import static_files
from atomstream.server.http.guessing import MAX_WRONG
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient

UNKNOWN = "3e0f6d3a-52c5-4b39-9a29-6a1d0e4b7c11"


@asynccontextmanager
async def browser(server: LiveServer, **headers: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps cookies and sends the Origin of one of our pages."""
    jar = aiohttp.CookieJar(unsafe=True)
    own = {"Origin": server.url, **headers}
    async with aiohttp.ClientSession(server.url, headers=own, cookie_jar=jar) as session:
        yield session


async def log_in(session: aiohttp.ClientSession, key: str) -> int:
    """The status of a log-in."""
    async with session.post("/session", json={"key": key}) as reply:
        return reply.status


async def status_of(session: aiohttp.ClientSession, method: str, path: str, **more: object) -> int:
    """The status of a request."""
    async with session.request(method, path, **more) as reply:  # type: ignore[arg-type]
        return reply.status


async def test_a_key_opens_a_session(serve: Serve) -> None:
    """With the cookie for a key, requests of the pages are answered; after the logout they are not."""
    server = await serve()
    async with browser(server) as session:
        assert await status_of(session, "GET", "/data_entries/") == 401
        assert await log_in(session, server.api_key) == 204
        assert await status_of(session, "GET", "/session") == 200
        assert await status_of(session, "GET", "/data_entries/") == 200
        assert await status_of(session, "DELETE", "/session") == 204
        assert await status_of(session, "GET", "/data_entries/") == 401


@pytest.mark.parametrize("path", ["/", "/settings", f"/samples/{UNKNOWN}?x=1", f"/compare/{UNKNOWN}"])
async def test_a_page_needs_a_session(serve: Serve, path: str) -> None:
    """A browser without a session goes to the login page, which leads back; others get the page, which has no data."""
    server = await serve()
    html = {"Accept": "text/html,application/xhtml+xml;q=0.9"}
    async with browser(server) as session:
        async with session.get(path, headers=html, allow_redirects=False) as reply:
            assert reply.status == 303
            to = URL(reply.headers["Location"])
        assert (to.path, to.query.get("next", "/")) == ("/login", path)
        assert await status_of(session, "GET", path, allow_redirects=False) == 200
        await log_in(session, server.api_key)
        assert await status_of(session, "GET", path, headers=html, allow_redirects=False) == 200


async def test_the_cookie_is_out_of_reach(serve: Serve) -> None:
    """No script can read it, no request of another site sends it, and it is not the key."""
    server = await serve()
    async with browser(server) as session, session.post("/session", json={"key": server.api_key}) as reply:
        (cookie,) = SimpleCookie(reply.headers["Set-Cookie"]).values()
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert server.api_key not in cookie.value


async def test_a_stolen_cookie_is_useless_after_the_logout(serve: Serve) -> None:
    """The server forgets the session, whatever cookie a browser still has."""
    server = await serve()
    async with browser(server) as session:
        await log_in(session, server.api_key)
        stolen = {cookie.key: cookie.value for cookie in session.cookie_jar}
        await status_of(session, "DELETE", "/session")
    async with aiohttp.ClientSession(server.url, cookies=stolen) as thief:
        assert await status_of(thief, "GET", "/data_entries/") == 401


async def test_a_session_survives_a_restart(serve: Serve) -> None:
    """The display at the machine stays logged in when the server restarts."""
    server = await serve()
    async with browser(server) as session:
        await log_in(session, server.api_key)
        await server.stop()
        await server.start()
        assert await status_of(session, "GET", "/data_entries/") == 200


async def test_wrong_keys_are_limited(serve: Serve) -> None:
    """A wrong key gets 401 and no cookie, too many get 429; the right key is accepted at once all the same."""
    server = await serve()
    async with browser(server) as session:
        for _ in range(MAX_WRONG):
            assert await log_in(session, "atst_guess") == 401
        async with session.post("/session", json={"key": "atst_guess"}) as reply:
            assert reply.status == 429
            assert int(reply.headers["Retry-After"]) > 0
        assert not list(session.cookie_jar)
        assert await log_in(session, f"  {server.api_key}\n") == 204


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"key": 3}', b'{"key": "\\ud800"}', b'{"key": null}', b"[" * 9000]
)
async def test_bad_logins_are_refused(serve: Serve, body: bytes) -> None:
    """A login without a valid key in JSON gets a 4xx, never a 500."""
    server = await serve()
    async with browser(server) as session:
        assert 400 <= await status_of(session, "POST", "/session", data=body) < 500


async def test_the_cookie_opens_no_protocol_request(serve: Serve) -> None:
    """Creating streams, tags and samples needs the key; a browser session has no right to it."""
    server = await serve()
    async with browser(server) as session:
        await log_in(session, server.api_key)
        for method, path in (
            ("POST", "/rheed/stream/"),
            ("POST", "/tags/"),
            ("GET", "/tags/"),
            ("GET", "/nothing"),
        ):
            assert await status_of(session, method, path, json={}) == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_requests_of_other_sites_are_refused(serve: Serve, headers: dict[str, str]) -> None:
    """Requests made by a page of another site are refused, with or without a cookie."""
    server = await serve()
    async with browser(server) as session:
        await log_in(session, server.api_key)
        assert await status_of(session, "GET", "/data_entries/", headers=headers) == 403
        assert await status_of(session, "DELETE", "/session", headers=headers) == 403
        assert await status_of(session, "GET", "/session") == 200


async def test_changes_need_an_origin(serve: Serve) -> None:
    """A change or a WebSocket with a cookie but without an Origin is refused."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
    async with browser(server) as session:
        await log_in(session, server.api_key)
        cookies = {cookie.key: cookie.value for cookie in session.cookie_jar}
    async with aiohttp.ClientSession(server.url, cookies=cookies) as bare:
        assert await status_of(bare, "DELETE", "/session") == 403
        assert await status_of(bare, "POST", "/session", json={"key": server.api_key}) == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await bare.ws_connect(f"/dashboard/streams/{data_id}/pictures")
        assert refused.value.status == 403


async def test_a_key_in_the_header_is_enough(serve: Serve) -> None:
    """Scripts may send the requests of the pages with the key in the header; a wrong key is refused."""
    server = await serve()
    async with aiohttp.ClientSession(server.url, headers=server.headers) as session:
        assert await status_of(session, "GET", "/session") == 200
    async with browser(server) as session:
        await log_in(session, server.api_key)
        assert await status_of(session, "GET", "/session", headers={"X-API-KEY": "atst_wrong"}) == 401


@pytest.mark.parametrize("path", ["/", "/login", "/streams/00000000-0000-4000-8000-000000000000"])
async def test_pages_are_locked_down(serve: Serve, path: str) -> None:
    """Pages run only scripts of this server, none inline, and no frame may embed them."""
    server = await serve()
    (server.data_dir / "streams" / "00000000-0000-4000-8000-000000000000").mkdir()
    async with aiohttp.ClientSession(server.url) as session, session.get(path) as reply:
        assert reply.status == 200
        policy = dict(
            part.strip().split(" ", 1) for part in reply.headers["Content-Security-Policy"].split(";")
        )
        text = await reply.text()
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in " ".join(policy.values())
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "//" not in text.replace("<!doctype", "")


@pytest.mark.parametrize(
    "path",
    [
        "../pages.py",
        "%2e%2e/pages.py",
        "js/../../pages.py",
        "/etc/passwd",
        "js",
        "",
        "stream.html",
        "js/%00",
        "js\\api.js",
    ],
)
async def test_only_listed_files_are_served(serve: Serve, path: str) -> None:
    """A path that is not one of the page's files is 404, however it is spelled."""
    from yarl import URL

    server = await serve()
    async with aiohttp.ClientSession() as session:
        url = URL(f"{server.url}/dashboard/static/{path}", encoded=True)
        async with session.get(url) as reply:
            assert reply.status in (400, 401, 404)


async def test_unchanged_files_are_not_sent_again(serve: Serve) -> None:
    """Each file of the pages has its correct type and an ETag, so that an unchanged file is sent only once."""
    server = await serve()
    async with aiohttp.ClientSession(server.url) as session:
        for name in static_files():
            if name.endswith(".html"):
                continue
            async with session.get(f"/dashboard/static/{name}") as reply:
                assert reply.status == 200
                tag = reply.headers["ETag"]
            async with session.get(f"/dashboard/static/{name}", headers={"If-None-Match": tag}) as repeated:
                assert repeated.status == 304


@pytest.mark.parametrize("folder", [DASHBOARD, RECORDER], ids=["dashboard", "recorder"])
def test_pages_are_complete_documents(folder: Path) -> None:
    """Each page's file has its own lines only, and is sent as one document with the head of all pages."""
    pages = [file.body.decode() for name, file in load_files(folder).items() if name.endswith(".html")]
    assert pages
    for page in pages:
        assert page.startswith("<!doctype html>")
        assert page.endswith("</body>\n</html>\n")
        for once in ("<head>", "</head>", "<title>", "<body", "css/base.css", "js/theme-first.js"):
            assert page.count(once) == 1
        assert "{{" not in page
