"""Requests that the server refuses, with their status; a refusal changes nothing."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import aiohttp
import pytest

from atomstream.server.http.loop_rate_limiter import LoopRateLimiter
from tests.live_server import Serve
from tests.wire_client import (
    WireClient,
    make_frames,
    pieces,
    raw_connection,
    raw_request,
    request_head,
    shard_bytes,
    upload_form,
)

UPLOAD_URLS = "/data_entries/raw_data/staged/upload_urls/"
UNKNOWN = "5db5c30e-a4e7-4404-bbce-e2c3e2c819bc"
BAD_FILES = [
    "frames.zarr/frames/c/../../../../keys.json",
    "frames.zarr/frames/c/0/0/0/../../x",
    "../frames.zarr/frames/c/0/0/0",
    "/frames.zarr/frames/c/0/0/0",
    "frames.zarr\\frames\\c\\0\\0\\0",
    "frames.zarr/frames/c/%2e%2e/0/0",
    "frames.zarr/frames/c/-1/0/0",
    "frames.zarr/frames/c/01/0/0",
    "frames.zarr/frames/c/٣/0/0",
    "frames.zarr/frames/c/0/0/0\n",
    "frames.zarr/frames/c/0/1/0",
    "frames.zarr/frames/c/10000001/0/0",
    "frames.zarr/frames/c/" + "9" * 400 + "/0/0",
    "frames.zarr/zarr.json",
    "",
]


async def test_other_files_are_400(serve: Serve) -> None:
    """A file name that is not exactly a chunk's, in any spelling, is 400."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        for name in BAD_FILES:
            query = {"original_filename": name, "num_parts": "1", "staging_type": "stream"}
            status, reply = await client.ask(
                "POST", UPLOAD_URLS, upload_form(data_id, (4, 8, 12), 4), params=query
            )
            assert status == 400, name
            assert "original_filename" in reply["detail"], name


async def test_files_as_a_whole_are_400(serve: Serve) -> None:
    """``Client.upload`` of the hosted service's client gets a sentence with what to do instead."""
    server = await serve()
    async with WireClient(server) as client:
        query = {"original_filename": "growth.mp4", "num_parts": "1", "staging_type": "core"}
        status, reply = await client.ask("POST", UPLOAD_URLS, {"physical_sample_name": "s"}, params=query)
    assert (status, "takes no files as a whole" in reply["detail"]) == (400, True)
    assert "atomstream stream FILE" in reply["detail"]


BAD_FIELDS: list[dict[str, str]] = [
    {"dims": "4,8"},
    {"dims": "4,8,12,1"},
    {"dims": "0,8,12"},
    {"dims": "-4,8,12"},
    {"dims": "4,8,1e3"},
    {"dims": "5,8,12"},
    {"dims": "4,99999999,99999999"},
    {"dims": "four"},
    {"chunk_size": "0"},
    {"chunk_size": "100001"},
    {"chunk_size": "many"},
    {"start_unix_ms_utc": "soon"},
    {"start_unix_ms_utc": "9" * 30},
    {"end_unix_ms_utc": "NaN"},
    {"clock_offset_ms": "nan"},
    {"clock_uncertainty_ms": "-1"},
    {"raw_frame_rate": "0"},
    {"dtype": "float32"},
    {"data_stream": "xrd"},
]


async def test_invalid_fields_are_400(serve: Serve) -> None:
    """Each field of the request for a URL is checked; an invalid one is 400 with a sentence."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        for changes in BAD_FIELDS:
            form = {**upload_form(data_id, (4, 8, 12), 4), **changes}
            query = {"original_filename": "frames.zarr/frames/c/0/0/0"}
            status, reply = await client.ask("POST", UPLOAD_URLS, form, params=query)
            assert status == 400, (changes, reply)
            assert reply["detail"].endswith("."), changes


async def test_unknown_stream_is_404(serve: Serve) -> None:
    """Without a stream there is no URL, whatever the id is; nothing is created on the disk."""
    server = await serve()
    async with WireClient(server) as client:
        for data_id in (UNKNOWN, "../..", "..", UNKNOWN.upper(), f"{{{UNKNOWN}}}", "", "a" * 5000):
            status, _ = await client.ask_url(data_id, 0, (4, 8, 12))
            assert status == 404, data_id
    assert list((server.data_dir / "streams").iterdir()) == []


BAD_JSON = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b'"' + b"\xff" * 10 + b'"', 400),
    (b'{"name": "\\ud800"}', 400),
    (b'{"name": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400),
    (b'{"x": ' + b'{"x":' * 9_000 + b"1" + b"}" * 9_000 + b', "name": "a"}', 400),
    (b'{"name": "' + b"a" * (1 << 20) + b'"}', 413),
    (b'{"name": 5}', 400),
    (b'{"name": "   "}', 400),
    (json.dumps({"name": "a" * 257}).encode(), 400),
]


async def test_bad_json_is_refused(serve: Serve) -> None:
    """Invalid JSON bodies are 400, too long ones 413, and the server continues."""
    server = await serve()
    async with WireClient(server) as client:
        for body, status in BAD_JSON:
            got, reply = await client.ask("POST", "/physical_samples/", data=pieces(body))
            assert got == status, body[:40]
            assert isinstance(reply["detail"], str), body[:40]
            assert await client.ask("GET", "/physical_samples/") == (200, []), body[:40]


@pytest.mark.parametrize("path", ["/physical_samples/", "/rheed/stream/", UPLOAD_URLS])
async def test_compressed_bodies_are_415(serve: Serve, path: str) -> None:
    """A body with a Content-Encoding is refused without reading: it could expand to any size."""
    server = await serve()
    async with WireClient(server) as client:
        query = {"original_filename": "frames.zarr/frames/c/0/0/0"}
        status, _ = await client.ask(
            "POST", path, {"name": "x"}, params=query, headers={"Content-Encoding": "gzip"}
        )
    assert status == 415


@pytest.mark.parametrize(
    "key", [None, "", "atst_wrong", "x" * 4000, "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/physical_samples/"),
        ("POST", "/rheed/stream/"),
        ("GET", "/data_entries/"),
        ("GET", "/no/such/path"),
    ],
)
async def test_wrong_keys_are_401(serve: Serve, method: str, path: str, key: str | None) -> None:
    """Without the right key each path is 401, including paths that do not exist."""
    server = await serve()
    headers = {} if key is None else {"X-API-KEY": key}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, server.url + path, headers=headers) as reply,
    ):
        assert reply.status == 401
        assert "key" in (await reply.json())["detail"].lower()


@pytest.mark.parametrize(("path", "kind"), [("/gateway/time", "json"), ("/health", "json"), ("/", "html")])
async def test_public_paths_need_no_key(serve: Serve, path: str, kind: str) -> None:
    """Time, health and the front page answer without a key."""
    server = await serve()
    async with aiohttp.ClientSession() as session, session.get(server.url + path) as reply:
        assert reply.status == 200
        assert kind in reply.headers["Content-Type"]
        assert reply.headers["X-Content-Type-Options"] == "nosniff"


async def test_front_page_is_locked_down(serve: Serve) -> None:
    """The page has no inline scripts, cannot be embedded in a frame, and shows nothing about streams."""
    server = await serve()
    async with WireClient(server) as client:
        await client.create("<script>alert(1)</script>")
    async with aiohttp.ClientSession() as session, session.get(server.url) as reply:
        text = await reply.text()
        policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "alert(1)" not in text


FOREIGN: list[dict[str, str]] = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8765"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "127.0.0.1@evil.example"},
    {"Host": "127.0.0.1/../x"},
    {"Host": "[::1"},
    {"Host": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://[evil"},
]


async def test_foreign_hosts_and_origins_are_403(serve: Serve) -> None:
    """A foreign Host (DNS rebinding) or Origin gets 4xx, even with the right key."""
    server = await serve()
    async with aiohttp.ClientSession() as session:
        for headers in FOREIGN:
            all_headers = {**server.headers, **headers}
            async with session.get(f"{server.url}/data_entries/", headers=all_headers) as reply:
                assert reply.status in (400, 403), headers
                assert "growth" not in await reply.text(), headers


async def test_own_names_are_accepted(serve: Serve) -> None:
    """Names of the loopback, configured ones, and our own pages are accepted, and URLs keep the name."""
    server = await serve(allowed_hosts=("labpc.example",))
    port = server.url.rsplit(":", 1)[1]
    async with WireClient(server) as client:
        data_id = await client.create()
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", "labpc.example", "LabPC.example:99"):
            form, query = (
                upload_form(data_id, (4, 8, 12), 4),
                {"original_filename": "frames.zarr/frames/c/0/0/0"},
            )
            headers = {"Host": host, "Origin": f"http://{host}"}
            status, reply = await client.ask("POST", UPLOAD_URLS, form, params=query, headers=headers)
            assert status == 200, reply
            assert reply[0]["url"].startswith(f"http://{host}/upload/{data_id}/0?")


async def test_public_url_is_in_upload_urls(serve: Serve) -> None:
    """Behind a proxy, upload URLs contain the configured address."""
    server = await serve(public_url="https://rheed.lab.example/")
    async with WireClient(server) as client:
        url = await client.url(await client.create(), 0, (4, 8, 12))
    assert url.startswith("https://rheed.lab.example/upload/")


async def test_no_redirects(serve: Serve) -> None:
    """Paths are exactly those of the protocol: a missing or added slash is 404, not a redirect."""
    server = await serve()
    async with WireClient(server) as client:
        for path in ("/physical_samples", "/tags", "/projects", "/gateway/time/", "//data_entries/"):
            assert (await client.ask("GET", path))[0] == 404
        assert (await client.ask("DELETE", "/tags/"))[0] == 405


async def _upload(client: WireClient) -> tuple[str, bytes, str]:
    data_id = await client.create()
    return await client.url(data_id, 0, (4, 8, 12)), shard_bytes(make_frames(4)), data_id


@pytest.mark.parametrize(
    ("find", "put"),
    [
        ("/0?", "/1?"),
        ("ticket=e", "ticket=f"),
        ("signature=", "signature=0"),
        ("?ticket=", "?tickets="),
        ("/upload/", "/upload/%2e%2e/"),
    ],
)
async def test_changed_urls_are_403(serve: Serve, find: str, put: str) -> None:
    """An upload URL with any changed part is refused."""
    server = await serve()
    async with WireClient(server) as client:
        url, body, data_id = await _upload(client)
        status, reply, _ = await client.put(url.replace(find, put), body)
    assert status in (403, 401, 404), reply
    assert server.archive(data_id).chunks() == {}


async def test_expired_url_is_403(serve: Serve) -> None:
    """An expired URL is 403 with the advice to request a new one."""
    server = await serve(url_ttl_s=0.001)
    async with WireClient(server) as client:
        url, body, _ = await _upload(client)
        status, reply, _ = await client.put(url, body)
    assert status == 403
    assert "new" in reply["detail"]


async def test_url_of_another_server_is_403(serve: Serve) -> None:
    """Each data folder has its own secret."""
    one, other = await serve(), await serve()
    async with WireClient(one) as client:
        url, body, _ = await _upload(client)
        status, _, _ = await client.put(url.replace(one.url, other.url), body)
    assert status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 411),
        ({"Content-Length": "9", "Content-Encoding": "gzip"}, 415),
        ({"Content-Length": str(1 << 24)}, 413),
        ({"Content-Length": str(1 << 62)}, 413),
    ],
    ids=["chunked", "gzip", "16 MB", "exabytes"],
)
async def test_put_headers_are_checked_first(serve: Serve, headers: dict[str, str], status: int) -> None:
    """Chunked, compressed and too large bodies are refused because of their headers, and leave no file."""
    server = await serve(linger_s=0.05)
    async with WireClient(server) as client:
        url, _, data_id = await _upload(client)
        head = {"Connection": "close", **headers}
        assert await put_head(url, head) == status
    assert server.incoming(data_id) == []


async def put_head(url: str, headers: dict[str, str]) -> int:
    """The status of the reply to the headers of a PUT."""
    if "Content-Length" not in headers:
        headers = {**headers, "Transfer-Encoding": "chunked"}
    return await raw_request("PUT", url, headers, b"")


@pytest.mark.parametrize("damage", ["index", "frame", "short", "empty", "other shape"])
async def test_bad_shards_are_400(serve: Serve, damage: str) -> None:
    """Bytes that are not a shard of the announced shape are 400 and not stored; a correct one can follow."""
    server = await serve()
    async with WireClient(server) as client:
        url, body, data_id = await _upload(client)
        bad = {
            "index": body[:-1] + bytes([body[-1] ^ 1]),
            "frame": body[:20] + bytes([body[20] ^ 255]) + body[21:],
            "short": body[: len(body) // 2],
            "empty": b"",
            "other shape": shard_bytes(make_frames(4, height=7)),
        }[damage]
        status, reply, _ = await client.put(url, bad)
        assert status == 400, reply
        assert server.incoming(data_id) == []
        assert (await client.put(url, body))[0] == 200


@pytest.mark.parametrize(("key", "answers"), [(False, [401]), (True, [100, 200])])
async def test_a_body_is_invited_only_when_it_is_read(serve: Serve, key: bool, answers: list[int]) -> None:
    """A client that expects 100 before it sends its body does not send one that is refused."""
    server, body = await serve(), b'{"name": "a"}'
    headers = {"Expect": "100-continue", "Content-Length": str(len(body)), **(server.headers if key else {})}
    async with raw_connection(server.url) as (reader, writer):
        writer.write(request_head("POST", f"{server.url}/tags/", headers))
        found = []
        while not found or found == [100]:
            found.append(int((await reader.readuntil(b"\r\n\r\n")).split()[1]))
            if found == [100]:
                writer.write(body)
    assert found == answers


async def test_an_address_of_another_server_is_refused(serve: Serve) -> None:
    """The address in a request line may be complete, as for a proxy; its name must be the server's, as Host."""
    server = await serve()
    for name, status in (
        (server.url, 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1@evil.example", 403),
    ):
        async with raw_connection(server.url) as (reader, writer):
            writer.write(
                f"GET {name}/health HTTP/1.1\r\nHost: {urlsplit(server.url).netloc}\r\n\r\n".encode()
            )
            assert int((await reader.readline()).split()[1]) == status, name


async def test_what_fails_because_its_stream_was_deleted_is_410(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files vanish during a request: the answer is 410, without a line in the log; of another stream it is 500."""
    server = await serve()
    async with WireClient(server) as client:
        gone, other = await client.create(), await client.create()
        for data_id in (gone, other):
            await client.send(data_id, 0, make_frames(4))

        def fail(*_args: object) -> None:
            server.context.streams.deleted.add(gone)
            raise FileNotFoundError("frames.zarr")

        monkeypatch.setattr("atomstream.server.archive.stream_archive.StreamArchive.chunks", fail)
        assert (await client.ask("GET", f"/rheed/stream/{gone}/chunks/0"))[0] == 410
        assert (await client.ask("GET", f"/rheed/stream/{other}/chunks/0"))[0] == 500


async def test_json_is_bounded_by_what_a_request_can_need(serve: Serve) -> None:
    """Decoding takes time of the event loop: 300,000 empty lists in a megabyte took a quarter of a second."""
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        lists = {"attributes": {"a": [[]] * 50_000}}
        assert (await client.ask("PATCH", f"/rheed/stream/{data_id}", lists))[0] == 413
        assert (await client.ask("POST", "/tags/", {"name": "a" * 70_000}))[0] == 413
        ids = {"data_ids": [data_id] * 5000, "tag_ids": []}
        assert (await client.ask("POST", "/tags/data-items/", ids))[0] == 200


async def test_a_nested_value_ends_the_decoding(serve: Serve) -> None:
    """Of 30,000 lists in an attribute the first one is refused; making all of them held the event loop for 26 ms."""
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        for value in ([[]] * 30_000, {"a": {}}, [{}]):
            status, reply = await client.ask(
                "PATCH", f"/rheed/stream/{data_id}", {"attributes": {"a": value}}
            )
            assert (status, "Expected `" in reply["detail"]) == (400, True), reply


async def test_long_json_is_decoded_one_body_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of more than 64 KiB waits for its turn; all other requests do not wait for it."""
    limiter = LoopRateLimiter(0)  # nobody passes
    monkeypatch.setattr(
        "atomstream.server.app.LoopRateLimiter", lambda per_iteration: limiter if per_iteration == 1 else None
    )
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        ids = {"data_ids": [data_id] * 5000, "tag_ids": []}
        long = asyncio.create_task(client.ask("POST", "/tags/data-items/", ids))
        while not len(limiter):
            await asyncio.sleep(0)
        assert (await client.ask("POST", "/tags/", {"name": "a"}))[0] == 200
        assert not long.done()
        limiter._per_iteration = 1
        limiter._next_turn()
        assert (await long)[0] == 200
