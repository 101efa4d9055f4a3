"""A server behind a proxy under a path prefix: every address that it sends has the prefix."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from atomstream.errors import ConfigError
from atomstream.server import ServerSettings
from atomstream.server.app import ROUTES
from atomstream.server.dashboard.pages import STATIC
from atomstream.server.http.path_prefix import check_prefix
from atomstream.server.preflight import check_start
from atomstream.streaming import AsyncRHEEDStreamer
from tests.live_server import LiveServer, Serve
from tests.reverse_proxy import ReverseProxy
from tests.wire_client import Address, WireClient, make_frames

PROXIES = pytest.mark.parametrize(
    ("strips", "keeps_host"),
    [(True, False), (True, True), (False, False), (False, True)],
    ids=["removes it", "removes it, keeps Host", "forwards it", "forwards it, keeps Host"],
)


@asynccontextmanager
async def behind_proxy(
    serve: Serve, prefix: str = "/rheed", **proxy: bool
) -> AsyncIterator[tuple[ReverseProxy, LiveServer]]:
    """A server, and a proxy in front of it."""
    async with ReverseProxy(prefix, **proxy).running() as made:
        server = await serve(public_url=made.url)
        made.target = server.url
        yield made, server


@PROXIES
async def test_the_client_streams_through_the_proxy(serve: Serve, strips: bool, keeps_host: bool) -> None:
    """Calls, uploads and the feed of results stay below the prefix; the frames arrive, and the results come back."""
    frames = make_frames(8, 32, 48)
    async with behind_proxy(serve, strips=strips, keeps_host=keeps_host) as (proxy, server):
        async with AsyncRHEEDStreamer(server.api_key, proxy.url, spool_dir=None) as streamer:
            data_id = await streamer.initialize(fps=2.0, rotations_per_min=0.0, chunk_size=4)
            await streamer.push(data_id, 0, frames[:4])
            await streamer.push(data_id, 1, frames[4:])
            await streamer.finalize(data_id)
            seen = [batch.count async for batch in streamer.results(data_id)]
        assert (server.frames(data_id) == frames).all()
        assert sum(seen) == 8
        assert proxy.outside == []


@PROXIES
async def test_pages_cookies_and_links(serve: Serve, strips: bool, keeps_host: bool) -> None:
    """A browser finds all files of a page, and gets a cookie for this path alone; the list's next page is below it."""
    async with (
        behind_proxy(serve, strips=strips, keeps_host=keeps_host) as (proxy, server),
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        origin = proxy.url.removesuffix("/rheed")
        html = {"Accept": "text/html"}
        for path in ("/samples/3e0f6d3a-52c5-4b39-9a29-6a1d0e4b7c11?a=b", "/", ""):
            async with session.get(proxy.url + path, headers=html) as reply:
                assert reply.url == URL(f"{proxy.url}/login", encoded=True).with_query(
                    {} if path in {"", "/"} else {"next": f"/rheed{path}"}
                )
        async with session.post(
            f"{proxy.url}/session", json={"key": server.api_key}, headers={"Origin": origin}
        ) as reply:
            assert reply.status == 204
            (cookie,) = SimpleCookie(reply.headers["Set-Cookie"]).values()
        for path in ("/", "", "/login", "/streams/none"):
            async with session.get(proxy.url + path, headers=html) as reply:
                assert reply.url == URL(proxy.url + path)
                links = re.findall(r'(?:href|src|action)="([^"]*)"', await reply.text())
            assert links
            assert all(link.startswith(("/rheed/", "#")) for link in links), links
            for link in links:
                if "static" in link:
                    async with session.get(origin + link) as reply:
                        assert reply.status == 200
        assert cookie["path"] == "/rheed"
        async with WireClient(Address(proxy.url, server.api_key)) as client:
            for name in "ab":
                await client.create(name)
        async with session.get(f"{proxy.url}/data_entries/?limit=1&keywords=") as reply:
            following = URL(reply.links["next"]["url"])
        assert following.path == "/rheed/data_entries/"
        async with session.get(following) as reply:
            assert [entry["raw_name"] for entry in await reply.json()] == ["a"]
        assert proxy.outside == []


async def test_without_the_proxy_the_server_can_be_used_as_well(serve: Serve) -> None:
    """On the server's own address both paths work; metrics name one route, whatever the path was."""
    server = await serve(public_url="http://lab.example/rheed")
    async with WireClient(server) as client:
        data_id = await client.create()
        for prefix in ("", "/rheed"):
            assert (await client.ask("GET", f"{prefix}/rheed/stream/{data_id}/analysis"))[0] == 200
        assert (await client.ask("GET", "/rheed/rheed/rheed/stream/x"))[0] == 404
        url = await client.url(data_id, 0, (4, 8, 12))
        assert url.startswith(f"http://lab.example/rheed/upload/{data_id}/0?")
    routes = {route for _, route, _ in server.context.measurements.requests}
    assert routes == {
        "/rheed/stream/",
        "/rheed/stream/{data_id}/analysis",
        "other",
        "/data_entries/raw_data/staged/upload_urls/",
    }


async def test_a_signature_is_for_one_chunk_under_both_paths(serve: Serve) -> None:
    """With the prefix or without it, a URL permits its own chunk and no other."""
    server = await serve(public_url="http://lab.example/rheed")
    async with WireClient(server) as client:
        data_id = await client.create()
        url = (await client.url(data_id, 0, (4, 8, 12))).removeprefix("http://lab.example")
        for path in (url, url.removeprefix("/rheed")):
            other = path.replace(f"{data_id}/0?", f"{data_id}/1?")
            assert (await client.ask("PUT", other))[0] == 403
            assert (await client.ask("PUT", path))[0] == 400  # accepted, but without a body


async def test_a_foreign_page_is_refused_behind_a_proxy(serve: Serve) -> None:
    """The public address is the Origin of our pages; one that only begins like it is another site."""
    server = await serve(public_url="http://lab.example/rheed")
    async with WireClient(server) as client:
        for origin, status in (
            ("http://lab.example", 204),
            ("http://lab.example.org", 403),
            ("http://lab.example:81", 403),
            ("null", 403),
        ):
            login = {"key": server.api_key}
            async with client.session.post(
                f"{server.url}/session", json=login, headers={"Origin": origin}
            ) as reply:
                assert reply.status == status, origin


@pytest.mark.parametrize(
    "path", ["/a b", "/ä", "/a%20b", "//a", "/a//b", "/../a", "/a/.", "/{x}", '/"', "/<b>"]
)
def test_a_path_that_is_none(tmp_path: Path, path: str) -> None:
    """Characters that would have to be quoted in pages, cookies and routes are refused at the start."""
    with pytest.raises(ConfigError, match="public_url"):
        ServerSettings(data_dir=tmp_path, public_url=f"https://lab.example{path}")


async def test_a_prefix_with_two_meanings(serve: Serve, tmp_path: Path) -> None:
    """``/dashboard/streams/ID`` would be a page and its data: refused by the start and its check, nothing is made."""
    where = tmp_path / "data"
    wrong: dict[str, Any] = {"public_url": "https://lab.example/dashboard", "data_dir": where}
    with pytest.raises(ConfigError, match="Choose another"):
        await serve(**wrong)
    assert not where.exists()
    assert not all(finding.ok for finding in check_start(ServerSettings(**wrong, port=0)))
    for fine in ("", "/rheed", "/rheed/stream", "/lab/rheed", "/streams", "/session"):
        check_prefix(ROUTES, fine)


def test_scripts_and_styles_use_no_path_without_the_prefix() -> None:
    """Scripts request the server's paths by ``at``, ``ask`` or ``socketUrl``; styles refer to files beside them."""
    request = re.compile(r"""(?:fetch|replace|assign|open)\(\s*[`'"]/|(?:href|src|url)\s*[:=(]\s*[`'"]/""")
    for path in [*STATIC.glob("js/*.js"), *STATIC.glob("css/*.css")]:
        assert not request.findall(path.read_text(encoding="utf-8")), path.name
