"""``atomstream login`` and ``logout``: the server is asked, the key saved, and later commands need neither."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from atomstream.cli import commands, main
from atomstream.login import ServerLogin, saved_login
from tests.cli.commands import atomstream
from tests.live_server import ThreadedServer


def run(*arguments: str, typed: str = "") -> tuple[int, str]:
    """Exit code and output of one command in this process."""
    result = CliRunner().invoke(commands, arguments, input=typed, standalone_mode=False)
    if result.exception is not None:
        return 3, str(result.exception)
    return int(result.return_value or 0), result.output


def test_the_prompted_key_is_stored(server: ThreadedServer) -> None:
    """The key is typed unseen; after that a command needs no option; logout deletes it."""
    code, output = run("login", typed=f"{server.url}\n{server.api_key}\n")
    assert code == 0
    assert server.api_key not in output
    assert saved_login() == ServerLogin(server.url, server.api_key)
    assert run("project", "list") == (0, "")
    assert run("logout")[0] == 0
    assert saved_login() is None


def test_a_key_as_an_option(server: ThreadedServer) -> None:
    """``--api-key`` on a real command line is saved without a question."""
    done = atomstream("login", "--endpoint", server.url, "--api-key", server.api_key)
    assert (done.returncode, done.stderr) == (0, "")
    assert saved_login() == ServerLogin(server.url, server.api_key)


def test_a_wrong_key_is_not_saved(server: ThreadedServer) -> None:
    """The server refuses it: an error, and nothing is saved."""
    code, output = run("login", "--endpoint", server.url, typed="wrong-key\n")
    assert code != 0
    assert "API key" in output
    assert saved_login() is None


def test_an_unreachable_server(closed_port: int) -> None:
    """Nothing is saved, except with --no-check."""
    url = f"http://127.0.0.1:{closed_port}"
    code, output = run("login", "--endpoint", url, typed="some-key\n")
    assert code != 0
    assert "--no-check" in output
    assert saved_login() is None
    assert run("login", "--endpoint", url, "--no-check", typed="some-key\n")[0] == 0
    assert saved_login() == ServerLogin(url, "some-key")


@pytest.mark.usefixtures("restored_logging")
def test_the_package_is_runnable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m atomstream`` is the command line."""
    import runpy

    monkeypatch.setattr("sys.argv", ["atomstream", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("atomstream", run_name="__main__")
    assert "version" in capsys.readouterr().out
    assert callable(main)
