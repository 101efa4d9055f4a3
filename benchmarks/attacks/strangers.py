"""Attacks of a stranger on the network, who has no key."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial

from benchmarks.attacks.rig import Outcome, Rig, count, counts_text


async def idle_connections(rig: Rig, size: float) -> Outcome:
    """Connections that send nothing, or half a request, far more than the server has handles."""
    number, open_now = round(2000 * size), []
    for index in range(number):
        with contextlib.suppress(OSError):
            reader, writer = await rig.connect()
            if index % 2:
                writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
            open_now.append((reader, writer))
    await asyncio.sleep(3.0)
    held = sum(not reader.at_eof() for reader, _ in open_now)
    health = await rig.raw(rig.request("GET", "/health"))
    for _, writer in open_now:
        writer.close()
    return Outcome(number, f"{held} held at once; /health {health}", health == 200)


async def never_reading(rig: Rig, size: float) -> Outcome:
    """Clients that ask for large files again and again and read nothing."""
    number, writers = round(60 * size) or 4, []
    ask = rig.request("GET", "/dashboard/static/vendor/uplot/uPlot.iife.min.js") * 200
    for _ in range(number):
        reader, writer = await rig.connect(receive_bytes=4096)
        writer.write(ask)
        writers.append((reader, writer))
    await asyncio.sleep(5.0)
    health = await rig.raw(rig.request("GET", "/health"))
    for _, writer in writers:
        writer.transport.abort()
    return Outcome(number, f"/health {health} while they wait", health == 200)


async def wrong_keys(rig: Rig, size: float) -> Outcome:
    """Guessing API keys, on many connections; the right key works meanwhile, and the log does not grow with it."""
    number, before = round(2000 * size), rig.server.log.stat().st_size
    guesses = [
        partial(rig.raw, rig.request("GET", "/tags/", X_API_KEY=f"atst_{index:040}"))
        for index in range(number)
    ]
    guessing = asyncio.create_task(count(guesses, 64))
    await asyncio.sleep(0.5)
    began = time.monotonic()
    right = await rig.raw(rig.keyed("GET", "/tags/"))
    took = time.monotonic() - began
    found = await guessing
    log = rig.server.log.stat().st_size - before
    good = right == 200 and took < 2.0 and 200 not in found and log < 20_000
    return Outcome(
        number,
        f"{counts_text(found)}; the right key {right} in {1000 * took:.0f} ms; {log} bytes of log",
        good,
    )


async def logins(rig: Rig, size: float) -> Outcome:
    """Wrong logins, large and held back: memory and tries are bounded."""
    number = round(400 * size)
    origin = rig.server.url
    bodies = [b'{"key": "' + b"k" * length + b'"}' for length in (20, 7_000, 900_000)]
    asks = [
        partial(rig.raw, rig.request("POST", "/session", bodies[index % 3], Origin=origin))
        for index in range(number)
    ]
    found = await count(asks, 64)
    return Outcome(number, counts_text(found), not {200, 204, 500, -1} & found.keys())


async def malformed(rig: Rig, size: float) -> Outcome:
    """Bytes that are not HTTP: each is answered or closed, and the log stays short."""
    number, before = round(3000 * size), rig.server.log.stat().st_size
    kinds = (
        b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\0" * 16,
        b"POST /session HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n: x\r\n\r\n",
    )  # fmt: skip
    asks = [partial(rig.raw, kinds[index % len(kinds)], within_s=5.0) for index in range(number)]
    found = await count(asks, 64)
    log = rig.server.log.stat().st_size - before
    return Outcome(
        number, f"{counts_text(found)}; {log} bytes of log", log < 20_000 and not {200, 500} & found.keys()
    )


async def other_files(rig: Rig, _size: float) -> Outcome:
    """Paths that lead out of the folder of the page's files, or to other files of the server."""
    ups = ("../", "..%2f", "%2e%2e/", "..%5c", "....//", "%252e%252e/", "/")
    targets = ("keys.json", "signing.key", "etc/passwd", "pages.py", "sessions.json")
    paths = [
        f"/dashboard/static/{up * depth}{target}" for up in ups for depth in (1, 4) for target in targets
    ]
    found = await count(partial(rig.raw, rig.request("GET", path)) for path in paths)
    return Outcome(len(paths), counts_text(found), found.keys() <= {400, 401, 404})


async def foreign_pages(rig: Rig, _size: float) -> Outcome:
    """Requests of other sites' pages, and under names of an attacker (DNS rebinding)."""
    origins = (
        "http://evil.example",
        "null",
        f"{rig.server.url}.evil.example",
        "https://127.0.0.1",
        "http://localhost",
    )
    asks: list[bytes] = [
        rig.request("POST", "/session", b'{"key": "x"}', Origin=origin) for origin in origins
    ]
    hosts = ("evil.example", "evil.example:80", "127.0.0.1@evil.example", "127.0.0.1.evil.example")
    asks += [f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for host in hosts]
    found = await count(partial(rig.raw, ask) for ask in asks)
    return Outcome(len(asks), counts_text(found), found.keys() <= {400, 403})


async def without_a_key(rig: Rig, _size: float) -> Outcome:
    """Every route of the server without a key: nothing but the public ones answers."""
    from aiohttp import web

    from atomstream.server.app import ROUTES
    from atomstream.server.http.access import required_access
    from atomstream.server.people.rights import Right

    uuid = "00000000-0000-4000-8000-000000000000"
    paths = []
    for route in ROUTES:
        if isinstance(route, web.RouteDef) and required_access(route.handler).right is not Right.NONE:
            path = route.path.replace("{data_id}", uuid)
            paths.append((route.method, "/".join("x" if "{" in part else part for part in path.split("/"))))
    found = await count(partial(rig.raw, rig.request(method, path)) for method, path in paths)
    return Outcome(len(paths), counts_text(found), found.keys() <= {401})


async def secrets_in_logs(rig: Rig, _size: float) -> Outcome:
    """The API key in every place of wrong requests: it never comes into the log."""
    key, host = rig.server.api_key, "Host: 127.0.0.1\r\n"
    texts = [
        f"GET /{key} HTTP/9.9\r\n\r\n", f"{key} / HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\n{host}X-API-KEY : {key}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{host}X-API-KEY: {key}\0\r\n\r\n", f"GET / HTTP/1.1\r\n{host}Cookie: s={key}\x01\r\n\r\n",
        f"POST /tags/ HTTP/1.1\r\n{host}X-API-KEY: {key}\r\nContent-Length: {key}\r\n\r\n",
        f"POST /session HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{key}\r\n",
        f"GET /?ticket={key}&signature={key} HTTP/1.1\r\n{host}\r\n",
    ]  # fmt: skip
    found = await count(partial(rig.raw, text.encode("latin-1"), within_s=5.0) for text in texts)
    await asyncio.sleep(0.5)
    times = rig.server.log.read_bytes().count(key.encode())
    return Outcome(len(texts), f"{counts_text(found)}; {times} times in the log", times == 0)


async def unknown_streams(rig: Rig, size: float) -> Outcome:
    """Asking for streams that do not exist, and signed URLs that nobody signed."""
    number = round(2000 * size)
    asks: list[Callable[[], Awaitable[int]]] = []
    for index in range(number):
        uuid = f"{index:08x}-0000-4000-8000-000000000000"
        raw = rig.request("PUT", f"/upload/{uuid}/{index}?ticket=e30=&signature={'0' * 64}", b"x")
        asks.append(partial(rig.raw, raw if index % 2 else rig.request("GET", f"/streams/{uuid}")))
    found = await count(asks, 64)
    return Outcome(number, counts_text(found), found.keys() <= {403, 404})


CASES = {
    "idle and half-sent connections": idle_connections,
    "clients that never read": never_reading,
    "wrong API keys": wrong_keys,
    "wrong logins": logins,
    "bytes that are not HTTP": malformed,
    "paths to other files": other_files,
    "pages of other sites": foreign_pages,
    "every route without a key": without_a_key,
    "the key in wrong places": secrets_in_logs,
    "streams that do not exist": unknown_streams,
}
