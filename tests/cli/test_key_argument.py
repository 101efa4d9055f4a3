"""API keys of commands: from a file or the environment, and never in the list of processes."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest

from atomstream.cli.key_argument import without_key
from atomstream.config import environment_api_key, read_key_file
from atomstream.errors import ConfigError
from atomstream.login import resolve_login
from tests.cli.commands import atomstream_here, running

KEY = "lab-key-from-a-file-0123456789"


@pytest.mark.parametrize(
    ("given", "rest", "key"),
    [
        (["serve", "--api-key", KEY, "--port", "0"], ["serve", "--port", "0"], KEY),
        (["serve", f"--api-key={KEY}"], ["serve"], KEY),
        (["serve", "--port", "0"], ["serve", "--port", "0"], None),
        (["project", "create", "--", "--api-key", KEY], ["project", "create", "--", "--api-key", KEY], None),
        (["serve", "--api-key"], ["serve", "--api-key"], None),
        (["serve", "--api-key", " "], ["serve", "--api-key", " "], None),
        (
            ["serve", "--api-key", KEY, "--api-key-file=x"],
            ["serve", "--api-key", KEY, "--api-key-file=x"],
            None,
        ),
    ],
)
def test_the_key_is_taken_out_of_the_arguments(given: list[str], rest: list[str], key: str | None) -> None:
    """The option and its value are removed, in both spellings; anything doubtful is left to the command."""
    assert without_key(given) == (rest, key)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_the_key_is_not_in_the_list_of_processes(tmp_path: Path) -> None:
    """A server started with --api-key accepts the key, and its arguments, which all users can read, lack it."""
    with running("serve", "--port", "0", "--data", tmp_path / "data", "--api-key", f" {KEY} ") as command:
        url = command.wait_for("atomstream listens at ").split()[-1]
        arguments = Path(f"/proc/{command.process.pid}/cmdline").read_text()
        request = urllib.request.Request(f"{url}/projects/", headers={"X-API-KEY": KEY})
        with urllib.request.urlopen(request, timeout=60) as reply:
            assert json.load(reply) == []
    assert "serve" in arguments
    assert KEY not in arguments


def test_a_key_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file given by ATOMSTREAM_API_KEY_FILE holds the key, with blanks, a line end or a byte order mark around it."""
    path = tmp_path / "key"
    for text in (KEY, f"  {KEY} \r\n\n", f"\ufeff{KEY}\n"):
        path.write_text(text, encoding="utf-8")
        assert read_key_file(path) == KEY
    monkeypatch.setenv("ATOMSTREAM_API_KEY_FILE", str(path))
    assert environment_api_key() == KEY
    assert resolve_login(None, "http://lab").api_key == KEY
    monkeypatch.setenv("ATOMSTREAM_API_KEY", "the-variable-itself-comes-first")
    assert environment_api_key() == "the-variable-itself-comes-first"


@pytest.mark.parametrize("content", [None, "", "two keys", "x" * 5000])
def test_a_bad_key_file_is_an_error_with_its_name(tmp_path: Path, content: str | None) -> None:
    """A missing, empty, or wrong file exits with 2 and a sentence, and not with another key."""
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="key"):
        read_key_file(path)
    done = atomstream_here("serve", "--data", tmp_path / "data", "--api-key-file", path)
    assert (done.returncode, str(path) in done.stderr) == (2, True)


def test_two_keys_are_a_usage_error(tmp_path: Path) -> None:
    """Key and key file together are refused."""
    done = atomstream_here("project", "list", "--api-key", KEY, "--api-key-file", tmp_path / "x")
    assert (done.returncode, "not both" in done.stderr) == (2, True)


def test_a_short_key_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The server does not start with a key that can be found by trying, and makes no folder."""
    done = atomstream_here("serve", "--data", tmp_path / "data", ATOMSTREAM_API_KEY="hunter2")
    assert done.returncode == 2
    assert "too short" in done.stderr
    assert "hunter2" not in done.stderr
    assert os.listdir(tmp_path) == []
