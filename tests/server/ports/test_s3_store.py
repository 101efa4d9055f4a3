"""Errors of the store in S3: each is one of the port, with a sentence that has no secrets (real SeaweedFS)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atomstream.cluster.engine import free_ports
from atomstream.errors import ConfigError
from atomstream.server.ports.s3_store import S3Store
from atomstream.server.ports.store import ChecksumError, StoreUnavailableError
from atomstream.server.ports.store_check import FOLDER
from atomstream.server.ports.store_url import check_store, open_store
from tests.stores import s3_store, s3_url

if TYPE_CHECKING:
    from atomstream.cluster.engines import SeaweedFS


@pytest.fixture
def make(s3_server: SeaweedFS) -> Iterator[Callable[..., S3Store]]:
    """A factory of stores each with its own prefix; they are closed at the end."""
    made: list[S3Store] = []
    prefix = f"errors/{uuid.uuid4()}"

    def factory(**options: Any) -> S3Store:
        made.append(s3_store(s3_server, prefix, **options))
        return made[-1]

    yield factory
    for store in made:
        store.close()


def test_wrong_keys_are_refused_without_showing_them(make: Callable[..., S3Store]) -> None:
    """A wrong secret, or an unknown key: the error names the reason and neither of them."""
    for options, code in (
        ({"secret_access_key": "another secret"}, "SignatureDoesNotMatch"),
        ({"access_key_id": "somebody else"}, "InvalidAccessKeyId"),
    ):
        store = make(**options)
        with pytest.raises(StoreUnavailableError, match=code) as caught:
            store.put("a", b"x")
        assert caught.value.retriable
        assert not any(secret in str(caught.value) for secret in options.values())
        with pytest.raises(ConfigError, match="refuses the keys of this server"):
            check_store(store)


def test_an_unreachable_server_is_unavailable() -> None:
    """Nothing listens at the endpoint: an error that may be repeated, and a sentence at the start."""
    port = free_ports(1)[0]
    store = S3Store("b", endpoint=f"http://127.0.0.1:{port}", access_key_id="k", secret_access_key="s")
    with pytest.raises(StoreUnavailableError, match="s3://b can't be used at present") as caught:
        store.get("a")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="Nothing was started"):
        check_store(store)
    store.close()
    with pytest.raises(StoreUnavailableError, match="was closed"):
        store.get("a")


def test_a_missing_bucket_is_named(s3_server: SeaweedFS) -> None:
    """Reading from a bucket that does not exist is not taken for a missing object."""
    keys = {"access_key_id": s3_server.access_key, "secret_access_key": s3_server.secret_key}
    store = S3Store("no-such-bucket", endpoint=s3_server.url, **keys)
    with pytest.raises(StoreUnavailableError, match="there is no bucket 'no-such-bucket'"):
        store.get("a")
    store.close()


def test_the_server_refuses_changed_bytes(make: Callable[..., S3Store]) -> None:
    """The server compares the checksum: bytes that were changed on the way are not stored."""
    store = make()
    assert not store.accepts_damaged(f"{FOLDER}/x")
    with_wrong_sums = make()
    with_wrong_sums._bucket = store._open({"x-amz-checksum-crc32c": "AAAAAA=="})
    with pytest.raises(ChecksumError, match="changed on the way"):
        with_wrong_sums.put("a", b"x")
    assert list(store.keys("")) == []


def test_an_outage_of_the_server_ends(tmp_path: Path) -> None:
    """While the server is dead each request is an error; what was stored is there when it is back."""
    from atomstream.cluster.engines import SeaweedFS
    from tests.engines import running

    with running(SeaweedFS) as server:
        store = s3_store(server, "outage")
        etag = store.put("a", b"kept", create_only=True)
        server.kill()
        with pytest.raises(StoreUnavailableError):
            store.put("b", b"x")
        server.start()
        assert store.get("a").data == b"kept"
        assert store.put("a", b"new", if_match=etag) != etag
        store.close()


def test_a_url_opens_the_store(s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``s3://`` with the keys of the environment, and a folder by its path or as ``file://``."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    prefix = f"url/{uuid.uuid4()}"
    store = open_store(s3_url(s3_server, prefix))
    store.put("a", b"x")
    assert store.name == f"s3://atomstream/{prefix}"
    check_store(store)
    store.close()
    for url in (str(tmp_path / "store"), (tmp_path / "store").as_uri()):
        folder = open_store(url)
        check_store(folder)
        assert folder.name == str(tmp_path / "store")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("gs://bucket", "a folder or an S3 bucket"),
        ("s3:///prefix", "has no bucket"),
        ("s3://key:secret@bucket", "AWS_SECRET_ACCESS_KEY in the environment"),
        ("s3://bucket?endpoint=https://u:p@lab", "has a password in it"),
        ("s3://bucket?endpoint=lab:9000", "is not an address"),
        ("s3://bucket?endpoint=http://s3.lab.example", "another computer"),
        ("s3://bucket?end=http://127.0.0.1", "'end' is not an option"),
        ("s3://bucket?endpoint=https://127.0.0.1&ca=/none/here.pem", "here.pem can't be read"),
        ("s3://key:secret@bucket:x", "can't be read"),
        ("http://[::1", "can't be read"),
        ("s3://bucket?endpoint=https://[u:p@lab", "can't be read"),
    ],
)
def test_a_url_that_is_not_possible_is_a_sentence(url: str, sentence: str) -> None:
    """Each names what is wrong; none quotes a secret."""
    with pytest.raises(ConfigError, match=sentence) as caught:
        open_store(url)
    assert "secret@" not in str(caught.value)
    assert "u:p@" not in str(caught.value)
