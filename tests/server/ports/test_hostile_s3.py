"""An S3 server that answers wrongly: a typed error in bounded time and memory, and nothing is taken from it."""

from __future__ import annotations

import socketserver
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from atomstream.server.ports import s3_store
from atomstream.server.ports.s3_store import S3Store
from atomstream.server.ports.store import (
    MAX_ATTEMPTS,
    ObjectMissingError,
    ObjectTooLongError,
    StoreError,
    StoreUnavailableError,
    attempts,
)

SECRET = "a-secret-of-the-store"
Answer = Callable[[str, str, dict[str, str]], bytes | Iterable[bytes]]
"""From method, path and query to the bytes of the reply."""


def reply(body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    """A reply of S3. ``length`` is the stated one; names of headers have _ in place of -."""
    stated = {
        "Content-Length": str(len(body) if length is None else length),
        "ETag": '"e1"',
        "Last-Modified": formatdate(0, usegmt=True),
        "Connection": "close",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in stated.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def error_body(code: str) -> bytes:
    """An error of S3 as XML."""
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>m</Message></Error>'.encode()


def page(*keys: str, following: str = "") -> bytes:
    """A page of a list."""
    one = "<Contents><Key>{}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
    more = f"<NextContinuationToken>{following}</NextContinuationToken>" if following else ""
    body = f"<ListBucketResult>{''.join(map(one.format, keys))}{more}</ListBucketResult>"
    return reply(body.encode())


class _Handler(socketserver.StreamRequestHandler):
    timeout = 2.0

    def handle(self) -> None:
        line, _, rest = self._head().partition(b"\r\n")
        method, target, _ = line.decode().split(" ", 2)
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        server: Any = self.server
        server.seen.append((method, target, rest.decode("latin-1")))
        found = server.answer(method, parts.path, query)
        for piece in (found,) if isinstance(found, bytes) else found:
            if server.ended.is_set():
                return
            try:
                self.wfile.write(piece)
            except OSError:
                return

    def _head(self) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head and (line := self.rfile.readline()):
            head += line
        return head


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    answer: Answer
    seen: list[tuple[str, str, str]]
    ended: threading.Event


@contextmanager
def serving(answer: Answer) -> Iterator[_Server]:
    """A server on a free port that answers each request by ``answer``."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.answer, server.seen, server.ended = answer, [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()


@contextmanager
def hostile(answer: Answer) -> Iterator[tuple[S3Store, _Server]]:
    """A store at such a server; requests are not repeated."""
    with serving(answer) as server:
        store = S3Store(
            "b",
            "lab",
            endpoint=f"http://127.0.0.1:{server.server_address[1]}",
            access_key_id="k",
            secret_access_key=SECRET,
            retry_config={"max_retries": 0},
        )
        yield store, server
        store.close()


def endless(head: bytes, piece: bytes = bytes(1 << 16)) -> Iterator[bytes]:
    """A reply without an end."""
    yield head
    while True:
        yield piece


CHUNKED = reply(Content_Length="", Transfer_Encoding="chunked")
BODIES: dict[str, tuple[Answer, str]] = {
    "longer than any": (lambda *_: endless(reply(length=1 << 40)), "is longer than"),
    "a piece too short": (lambda *_: reply(b"12345", length=50), "can't be used"),
    "chunks without an end": (
        lambda *_: endless(CHUNKED, b"10000\r\n" + bytes(1 << 16) + b"\r\n"),
        "can't be used",
    ),
    "an error with status 500": (lambda *_: reply(error_body("InternalError"), "500 No"), "can't be used"),
    "no HTTP": (lambda *_: b"SSH-2.0-x\r\n", "can't be used"),
    "a header without an end": (lambda *_: endless(b"HTTP/1.1 200 OK\r\nA: ", b"a" * 65536), "can't be used"),
    "another status": (lambda *_: reply(b"x", "418 No"), "can't be used"),
    "a wrong time": (lambda *_: reply(b"x", Last_Modified="yesterday"), "can't be used"),
    "a negative length": (lambda *_: reply(b"x", Content_Length="-5"), "can't be used"),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_wrong_body_is_an_error(case: str) -> None:
    """Reading a whole object, a part of it or its pieces: a typed error, and no more memory than may be read."""
    answer, why = BODIES[case]
    with hostile(answer) as (store, _):
        tracemalloc.start()
        try:
            for read in (
                lambda: store.get("a", most=1 << 20),
                lambda: store.fetch("a", most=1 << 20),
                lambda: store.fetch("a", 0, 100),
                lambda: b"".join(map(bytes, store.pieces("a", most=1 << 20))),
            ):
                with pytest.raises(StoreError) as caught:
                    read()
                assert SECRET not in str(caught.value)
            with pytest.raises(StoreError, match=why):
                store.get("a", most=1 << 20)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


RANGES: dict[str, bytes] = {
    "the whole object": reply(bytes(1000)),
    "another part": reply(bytes(100), "206 Partial", Content_Range="bytes 500-599/1000"),
    "a longer part": reply(bytes(1000), "206 Partial", Content_Range="bytes 0-999/1000"),
    "a part of another length": reply(bytes(50), "206 Partial", Content_Range="bytes 0-99/1000"),
    "no range": reply(bytes(100), "206 Partial"),
    "nonsense": reply(bytes(100), "206 Partial", Content_Range="bytes x-y/z"),
}


@pytest.mark.parametrize("case", RANGES)
def test_another_part_than_the_wanted_one_is_an_error(case: str) -> None:
    """Bytes of other places would be taken for frames."""
    with hostile(lambda *_: RANGES[case]) as (store, _):
        for offset, length in ((0, 100), (10, 20), (-100, None)):
            try:
                found = store.fetch("a", offset, length)
            except StoreError:
                continue
            assert (case, offset) == ("another part", -100)  # which may be the last one of this object
            assert len(found) <= 100


def test_a_redirect_to_another_host_is_not_followed() -> None:
    """Neither the names of objects nor a session token come to another computer, and nothing is read from it."""
    with (
        serving(lambda *_: reply(b"x")) as other,
        hostile(
            lambda *_: reply(
                status="307 Elsewhere", Location=f"http://localhost:{other.server_address[1]}/b/lab/a"
            )
        ) as (store, _),
    ):
        for request in (lambda: store.get("a"), lambda: store.head("a"), lambda: list(store.keys(""))):
            with pytest.raises(StoreUnavailableError, match="redirects to another host"):
                request()
        with pytest.raises(StoreUnavailableError, match="307"):
            store.put("a", b"frames of the lab")
        assert not other.seen


def test_requests_through_a_proxy_go_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the environment stays the one of the store."""
    with serving(lambda *_: reply(b"x")) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_address[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        store = S3Store(
            "b",
            endpoint="http://store.invalid",
            access_key_id="k",
            secret_access_key=SECRET,
            retry_config={"max_retries": 0},
        )
        assert store.get("a").data == b"x"
        store.close()
        assert proxy.seen[0][1] == "http://store.invalid/b/a"


def test_a_redirect_on_the_same_host_gets_no_keys() -> None:
    """The library follows redirects to other ports: without the signature of this server."""
    with (
        serving(lambda *_: reply(b"x")) as other,
        hostile(
            lambda *_: reply(
                status="307 Elsewhere", Location=f"http://127.0.0.1:{other.server_address[1]}/b/lab/a"
            )
        ) as (store, _),
    ):
        for request in (
            lambda: store.get("a"),
            lambda: store.put("a", b"frames of the lab"),
            lambda: list(store.keys("")),
        ):
            with suppress(StoreError):
                request()
        sent = "".join(map(str, other.seen)).lower()
        assert not any(secret in sent for secret in ("authorization", "credential", SECRET))


@pytest.mark.parametrize(
    "key",
    [
        "lab/streams/../../up", "/etc/x", "lab/streams/./x", "elsewhere/x", "lab/streams//x", "lab/streams/a\\b",
        "lab/streams/a&#10;b", "lab/streamsx/y", "", "lab/streams/", "lab/streams",
    ],
)  # fmt: skip
def test_a_name_that_no_object_has_is_left_out(key: str) -> None:
    """Listed names become paths of files: those that lead elsewhere are not used."""
    with hostile(lambda *_: page("lab/streams/good", key)) as (store, _):
        try:
            found = [*store.keys("streams"), *(f"streams/{name}" for name in store.children("streams"))]
        except StoreUnavailableError:
            return
        assert set(found) <= {"streams/good"}


def test_a_list_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page names a further one, or the same one again."""
    monkeypatch.setattr(s3_store, "MAX_PAGES", 20)
    monkeypatch.setattr(s3_store, "LIST_CHILDREN_S", 0.5)
    count = iter(range(10**9))
    answers: tuple[Answer, ...] = (
        lambda *_: page("lab/a", following="same"),
        lambda *_: page("lab/a", following=f"t{next(count)}"),
    )
    for answer in answers:
        with hostile(answer) as (store, _):
            with pytest.raises(StoreUnavailableError, match="no end after 20 pages"):
                list(store.keys(""))
            with pytest.raises(StoreUnavailableError, match=r"no end after 0\.5 s"):
                store.children("")


def test_an_object_that_is_replaced_again_and_again() -> None:
    """A store that refuses each change is not asked for ever."""
    with hostile(lambda *_: reply(error_body("PreconditionFailed"), "412 No")) as (store, _):
        tries = attempts(store, "doc")
        assert [next(tries) for _ in range(MAX_ATTEMPTS)] == [*range(MAX_ATTEMPTS)]
        with pytest.raises(StoreUnavailableError, match="refused to replace doc"):
            next(tries)


def test_a_put_that_is_answered_wrongly_is_an_error() -> None:
    """Status 200 without a version, as with an error in its body, or another status: never taken for stored."""
    for answer in (
        reply(error_body("InternalError"), ETag=""),
        reply(ETag=""),
        reply(status="304 Not Modified"),
        reply(status="100 Continue"),
        b"",
    ):
        with hostile(lambda *_, answer=answer: answer) as (store, _), pytest.raises(StoreError):  # type: ignore[misc]
            store.put("a", b"x")


def test_a_missing_object_is_missing() -> None:
    """The wrong server's answers of the right kind are understood: this file's server can be."""
    with (
        hostile(lambda *_: reply(error_body("NoSuchKey"), "404 No")) as (store, _),
        pytest.raises(ObjectMissingError),
    ):
        store.get("a")
    with hostile(lambda *_: reply(b"content")) as (store, server):
        assert store.get("a").data == b"content"
        assert store.get("a").etag == '"e1"'
        assert server.seen[0][:2] == ("GET", "/b/lab/a")
    with hostile(lambda *_: reply(bytes(100))) as (store, _), pytest.raises(ObjectTooLongError):
        store.get("a", most=99)
