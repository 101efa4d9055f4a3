"""Keys and secrets: created once, stored as hashes, never logged."""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from atomstream.errors import ConfigError
from atomstream.protocol import SERVER_KEY_PREFIX
from atomstream.server import ServerSettings, ensure_key, running_server
from atomstream.server.http import api_keys
from atomstream.server.http.api_keys import KeyRing, StoredKey, fingerprint, read_keys, rotate_server_key
from atomstream.system.files import load_or_make_secret, write_private
from tests.live_server import Serve
from tests.wire_client import WireClient, make_frames


def test_first_start_makes_one_key(tmp_path: Path) -> None:
    """The first call creates a key with our prefix and 256 random bits; the second creates none."""
    key = ensure_key(tmp_path)
    assert key is not None
    assert re.fullmatch(SERVER_KEY_PREFIX + r"[\w-]{43}", key)
    assert ensure_key(tmp_path) is None
    assert KeyRing.load(tmp_path, None).opens(key)
    assert not KeyRing.load(tmp_path, None).opens(key[:-1])


def test_news_are_read_when_they_are_valid(tmp_path: Path) -> None:
    """As long as a new key is not valid, other threads see that there is something to read, and wait for it."""

    class Watched(KeyRing):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "_keys" and hasattr(self, "_signature"):
                seen.append(self.has_news())

    seen: list[bool] = []
    ensure_key(tmp_path)
    ring = Watched.load(tmp_path, None)
    assert not ring.has_news()
    key = rotate_server_key(tmp_path, 60.0)
    assert ring.has_news()
    assert ring.refresh()
    assert seen == [True]
    assert not ring.has_news()
    assert ring.opens(key)


def test_a_change_while_the_keys_are_read_is_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is changed just after it was read is read at the next look."""
    ensure_key(tmp_path)
    made: list[str] = []

    def read_then_change(place: Path) -> list[StoredKey]:
        found = read_keys(place)
        patched.undo()
        made.append(rotate_server_key(tmp_path, 60.0))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(api_keys, "read_keys", read_then_change)
        ring = KeyRing.load(tmp_path, None)
    assert ring.has_news()
    assert ring.refresh()
    assert ring.opens(made[0])


def test_only_hashes_are_kept(tmp_path: Path) -> None:
    """No file of the data folder contains the key."""
    key = ensure_key(tmp_path)
    assert key is not None
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not any(key.encode() in data for data in kept)
    assert any(fingerprint(key).hex().encode() in data for data in kept)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file modes")
def test_private_files_are_private(tmp_path: Path) -> None:
    """Only their owner can read the keys and the signing secret."""
    ensure_key(tmp_path)
    load_or_make_secret(tmp_path / "secret")
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_secret_is_kept(tmp_path: Path) -> None:
    """The signing secret is the same at each start; one that a crash cut short is replaced."""
    path = tmp_path / "secret"
    first = load_or_make_secret(path)
    assert load_or_make_secret(path) == first
    path.write_bytes(b"short")
    assert len(load_or_make_secret(path)) == 32


def test_failed_private_write_leaves_nothing(tmp_path: Path) -> None:
    """A private file that cannot be put in place leaves no partial file."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    with pytest.raises(OSError):
        write_private(tmp_path / "taken", b"secret")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_damaged_key_file_is_an_error(tmp_path: Path) -> None:
    """An unreadable key file is an error that names it; neither is access opened nor a new key created."""
    (tmp_path / "keys.json").write_text("[{")
    with pytest.raises(ConfigError, match=re.escape("keys.json")):
        ensure_key(tmp_path)


async def test_fixed_key_is_the_only_one(serve: Serve) -> None:
    """With a configured key, only that one is valid and none is created; its hash replaces those stored."""
    server = await serve(api_key="lab-key-0123456789-abcdefghij")
    async with WireClient(server) as client:
        assert (await client.ask("GET", "/tags/"))[0] == 200
    assert server.api_key == "lab-key-0123456789-abcdefghij"
    assert fingerprint(server.api_key).hex() in (server.data_dir / "keys.json").read_text()


async def test_new_key_is_shown_once(serve: Serve) -> None:
    """The start that creates the key shows it; later starts cannot, and the key is still valid."""
    server = await serve()
    first = server.api_key
    await server.stop()
    async with running_server(ServerSettings(data_dir=server.data_dir, port=0)) as restarted:
        assert restarted.api_key is None
    await server.start()
    assert server.api_key == first
    async with WireClient(server) as client:
        assert (await client.ask("GET", "/tags/"))[0] == 200


async def test_logs_hold_no_secrets(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """At the most verbose level no log line contains the key, a wrong key, or the signature of an upload URL."""
    caplog.set_level(logging.DEBUG)
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        url = await client.url(data_id, 0, (4, 8, 12))
        await client.send(data_id, 0, make_frames(4))
        await client.put(url.replace("ticket=", "ticket=A"), b"x")
        await client.ask("GET", "/tags/", headers={"X-API-KEY": "atst_wrong-key"})
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("atomstream"))
    assert f"PUT '/upload/{data_id}/0' -> 200" in text
    assert "'/tags/' -> 401" in text
    for secret in (server.api_key, "atst_wrong-key", "signature", "ticket="):
        assert secret not in text


async def test_failures_name_no_paths(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A 500 contains a reference to the log, and no paths, SQL or code; the server continues."""
    server = await serve()
    frames = make_frames(4)
    async with WireClient(server) as client:
        data_id = await client.create()
        incoming = server.folder(data_id) / "incoming"
        shutil.rmtree(incoming)
        incoming.write_text("in the way")
        status, reply = await client.send(data_id, 0, frames)
        incoming.unlink()
        assert (await client.send(data_id, 0, frames))[0] == 200
    assert status == 500
    reference = re.fullmatch(r".*reference ([0-9a-f]{8})\.", reply["detail"])
    assert reference is not None
    assert f"reference {reference[1]}" in caplog.text
    assert "incoming" not in reply["detail"]
