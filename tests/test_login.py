"""Which server and key a client uses: arguments, environment, or the saved login; no key goes anywhere by guess."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from atomstream import RHEEDStreamer
from atomstream.config import HOSTED_ENDPOINT
from atomstream.errors import ConfigError
from atomstream.login import ServerLogin, login_file, remove_login, resolve_login, save_login, saved_login

LAB = "http://lab:8765"
KEY = "atst_of-the-lab-0123456789"


@pytest.fixture
def saved() -> ServerLogin:
    login = ServerLogin(LAB, KEY)
    save_login(login)
    return login


@pytest.mark.parametrize("key", [KEY, "a-key-of-another-kind"])
def test_a_key_of_the_environment_needs_an_endpoint(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Whatever the key looks like: without an endpoint it is sent nowhere."""
    monkeypatch.setenv("ATOMSTREAM_API_KEY", key)
    with pytest.raises(ConfigError, match=r"no endpoint: .* `atomstream login`"):
        resolve_login(None, None)
    with pytest.raises(ConfigError, match="endpoint"):
        RHEEDStreamer()


def test_a_key_as_argument() -> None:
    """The hosted service's documented constructor works; a key of an atomstream server never goes there."""
    assert resolve_login("abc", None) == ServerLogin(HOSTED_ENDPOINT, "abc")
    with pytest.raises(ConfigError, match="no endpoint"):
        resolve_login(KEY, None)


def test_the_saved_login_is_used(saved: ServerLogin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login gives server and key; an argument or a variable overrides it, and the saved key is sent to the saved
    server only."""
    assert resolve_login(None, None) == saved
    assert resolve_login(None, "http://LAB:8765/") == saved
    assert resolve_login("other", None) == ServerLogin(LAB, "other")
    with pytest.raises(ConfigError, match="No API key for http://elsewhere"):
        resolve_login(None, "http://elsewhere:1")
    monkeypatch.setenv("ATOMSTREAM_ENDPOINT", "http://elsewhere:1")
    monkeypatch.setenv("ATOMSTREAM_API_KEY", "other")
    assert resolve_login(None, None) == ServerLogin("http://elsewhere:1", "other")


def test_without_anything() -> None:
    """The error names the three ways to give a key."""
    with pytest.raises(ConfigError, match=r"atomstream login.*api_key=.*ATOMSTREAM_API_KEY"):
        resolve_login(None, None)


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_only_the_user_can_read_it(saved: ServerLogin) -> None:
    """File and folder are private."""
    assert stat.S_IMODE(login_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(login_file().parent.stat().st_mode) == 0o700


def test_logout(saved: ServerLogin) -> None:
    """Nothing is left; a second time there is nothing to remove."""
    assert remove_login()
    assert saved_login() is None
    assert not remove_login()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"endpoint": 1, "api_key": "k"}', json.dumps({"endpoint": LAB, "api_key": "ä"})],
)
def test_a_damaged_file_is_one_sentence(saved: ServerLogin, content: str) -> None:
    """The error names the file and the way out; arguments work nevertheless."""
    login_file().write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="atomstream log"):
        resolve_login(None, None)
    assert resolve_login("k", LAB) == ServerLogin(LAB, "k")


def test_another_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``ATOMSTREAM_LOGIN_FILE`` names the file."""
    monkeypatch.setenv("ATOMSTREAM_LOGIN_FILE", str(tmp_path / "here.json"))
    assert save_login(ServerLogin(LAB, KEY)) == tmp_path / "here.json"
    assert saved_login() == ServerLogin(LAB, KEY)
