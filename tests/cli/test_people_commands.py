"""``atomstream users``, ``keys`` and ``audit`` on a data folder, with and without a running server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from atomstream.cli.people_options import end_of, seconds_of
from atomstream.server.http.api_keys import KeyRing, ensure_key
from atomstream.server.people.rights import Principal
from atomstream.server.people.store import People
from tests.cli.commands import atomstream_here
from tests.live_server import ThreadedServer


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Runs a command on a data folder, and returns what it printed."""
    folder = tmp_path / "data"
    (folder / "streams").mkdir(parents=True)
    project = {
        "type": "project",
        "id": "11111111-1111-4111-8111-111111111111",
        "name": "GaN on Si",
        "made": "2026",
    }
    (folder / "names.jsonl").write_text(json.dumps(project) + "\n")

    def command(*words: str, code: int = 0) -> str:
        done = atomstream_here(*words, "--data", str(folder))
        assert done.returncode == code, done.stdout + done.stderr
        return (
            done.stdout
            if words[:2] in (("keys", "create"), ("keys", "rotate")) and not code
            else (done.stdout + done.stderr)
        )

    return command


def owner(folder: Path, secret: str) -> Principal | None:
    """Return the holder of the key ``secret``, or None."""
    from atomstream.server.http.api_keys import fingerprint

    directory = People(folder).directory
    key = directory.key_with(fingerprint(secret.strip()))
    return None if key is None else directory.of_key(key)


def test_the_life_of_people_and_keys(run: Callable[..., str], tmp_path: Path) -> None:
    """Each command makes the change that it prints, and the audit log has each change."""
    folder = tmp_path / "data"
    password = tmp_path / "password"
    password.write_text("correct horse battery\r\n")
    run("users", "add", "anna", "--role", "admin", "--password-file", str(password))
    assert "login-link" in run("users", "add", "Max Weber", "--project", "gan on si")
    listed = run("users", "list")
    assert "anna" in listed
    assert "password" in listed
    assert "GaN on Si" in listed
    run("users", "set", "max weber", "--role", "operator")
    key = run("keys", "create", "--user", "Max Weber", "--scope", "write", "--expires", "90d")
    assert key.startswith("atst_")
    assert key.count("\n") == 1
    found = owner(folder, key)
    assert found is not None
    assert (found.name, found.right.text, len(found.projects or ())) == ("Max Weber", "write", 1)
    second = run("keys", "rotate", found.key_id, "--overlap", "1h")
    assert owner(folder, key) is not None
    assert owner(folder, second) is not None
    run("keys", "revoke", found.key_id)
    assert owner(folder, key) is None
    listed = run("keys", "list")
    assert found.key_id not in listed
    assert "Max Weber" in listed
    link = run("users", "login-link", "anna", "--url", "https://mbe-pc.lab.local:9000")
    assert link.startswith("https://mbe-pc.lab.local:9000/login#link=")
    assert run("users", "login-link", "anna").startswith("http://127.0.0.1:8765/login#link=")
    run("users", "set", "anna", "--no-password", "--rename", "Anna S")
    run("users", "remove", "Max Weber")
    assert owner(folder, second) is None
    shown = run("audit")
    for word in (
        "added anna",
        "added Max Weber",
        "made key",
        "revoked key",
        "login link",
        "removed Max Weber",
    ):
        assert word in shown
    assert "argon2" not in shown
    assert [json.loads(line)["via"] for line in run("audit", "--json", "--last", "2").splitlines()] == [
        "command line",
        "command line",
    ]
    assert run("audit", "--by", "nobody else") == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("users", "remove", "anna"), "last administrator"),
        (("users", "set", "anna", "--role", "viewer"), "last administrator"),
        (("users", "add", "ANNA"), "already"),
        (("users", "add", "bob", "--project", "InN"), "There are 'GaN on Si'"),
        (("users", "add", "bob", "--password-file", "no-such-file"), "can't be read"),
        (("users", "set", "anna"), "There is nothing to change"),
        (("users", "set", "anna", "--project", "GaN on Si", "--all-projects"), "not both"),
        (("keys", "create", "--scope", "read"), "person or to an instrument"),
        (("keys", "create", "--scope", "read", "--user", "anna", "--expires", "soon"), "90d"),
        (("keys", "create", "--scope", "read", "--user", "anna", "--expires", "2020-01-01"), "future"),
        (("keys", "revoke", "12345678"), "no key"),
        (("keys", "rotate", "12345678"), "no key"),
    ],
)
def test_what_is_refused(run: Callable[..., str], words: tuple[str, ...], sentence: str) -> None:
    """What is not possible is refused with a sentence and the exit code 2."""
    run("users", "add", "anna", "--role", "admin")
    assert sentence in " ".join(run(*words, code=2).split())


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """A mistyped folder is named, and nothing is made there."""
    done = atomstream_here("users", "list", "--data", str(tmp_path / "x"))
    assert done.returncode == 2
    assert "is not the data folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_key_of_the_server(run: Callable[..., str], tmp_path: Path) -> None:
    """The server's own key can be rotated; it is revoked only where somebody else can manage the server."""
    folder = tmp_path / "data"
    first = ensure_key(folder)
    assert first is not None
    listed = run("keys", "list").splitlines()[1].split()
    assert listed[1:4] == ["the", "server", "admin"]
    ring = KeyRing.load(folder, None)
    second = run("keys", "rotate", listed[0], "--overlap", "1h").strip()
    assert not ring.opens(second)
    assert ring.refresh()
    assert ring.opens(first)
    assert ring.opens(second)
    assert "Make one first" in run("keys", "revoke", listed[0], code=2)
    run("users", "add", "anna", "--role", "admin")
    run("keys", "revoke", listed[0])
    assert ring.refresh()
    assert not ring.opens(first)
    assert not ring.opens(second)
    assert ensure_key(folder) is None  # a revoked key is not replaced at the next start


def test_a_running_server_notices(serve_in_thread: Callable[..., ThreadedServer]) -> None:
    """A key is valid as soon as the command has made it, and not any more after it was revoked."""
    server = serve_in_thread()
    data = ("--data", str(server.data_dir))

    def status(key: str) -> int:
        asked = urllib.request.Request(f"{server.url}/data_entries/", headers={"X-API-KEY": key})
        try:
            with urllib.request.urlopen(asked) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    key = atomstream_here("keys", "create", "--instrument", "MBE 3", "--scope", "read", *data).stdout.strip()
    assert status(key) == 200
    listed = atomstream_here("keys", "list", *data).stdout
    key_id = next(line.split()[0] for line in listed.splitlines() if "MBE 3" in line)
    assert atomstream_here("keys", "revoke", key_id, *data).returncode == 0
    while status(key) == 200:
        pass
    assert status(key) == 401


def test_times() -> None:
    """Durations and dates as people write them."""
    assert seconds_of("90d", "") == 90 * 86400
    assert seconds_of(" 1.5 h", "") == 5400
    assert end_of("never", "") == 0
    assert end_of("2027-06-30", "") == 1814313600
    assert end_of("2027-06-30T02:00+02:00", "") == 1814313600
