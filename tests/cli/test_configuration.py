"""The settings of ``atomstream serve``: flag before environment before file before default, and JSON logs."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from atomstream.cli.configuration import DEFAULTS, PLAIN, PREFIX, merged
from atomstream.cli.console import JsonFormatter
from atomstream.cli.serve import serve
from atomstream.errors import ConfigError
from atomstream.server import ServerSettings
from tests.cli.commands import atomstream, atomstream_here, running
from tests.paths import REPO

LIMITS = ServerSettings.limits()
KEY = "lab-secret-3-0123456789-abc"

VALUES: dict[str, tuple[Any, str, str, Any]] = {
    "host": ("127.0.0.2", "127.0.0.3", '"127.0.0.4"', "127.0.0.4"),
    "port": (1, "2", "3", 3),
    "allowed_hosts": (("a", "b"), "c, d", '["e"]', ("e",)),
    "insecure_network": (False, "yes", "true", True),
    "max_uploads": (1, "2", "3", 3),
    "silence_s": (1.5, "2.5", "3", 3.0),
    "log_level": ("error", "info", '"debug"', "debug"),
}
"""By name: a value as a flag, as text of the environment, as TOML, and what the TOML means."""


def write(folder: Path, text: str) -> Path:
    """A configuration file."""
    path = folder / "server.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", VALUES)
def test_the_precedence_is_the_same_for_all(tmp_path: Path, name: str) -> None:
    """Flag, environment, file, default: the first that has the setting decides."""
    flag, text, toml, meant = VALUES[name]
    path = write(tmp_path, f"{'[limits]' if name in LIMITS else ''}\n{name} = {toml}\n")
    environment = {PREFIX + name.upper(): text}
    from_environment = merged({}, environment, path, LIMITS)[name]
    assert merged({name: flag}, environment, path, LIMITS)[name] == flag
    assert from_environment not in (flag, meant) or name == "insecure_network"
    assert merged({}, {}, path, LIMITS)[name] == meant
    assert merged({}, {}, None, LIMITS)[name] == {**DEFAULTS, **LIMITS}[name]


def test_the_file_of_the_environment(tmp_path: Path) -> None:
    """``ATOMSTREAM_SERVER_CONFIG`` names the file, unless a flag does."""
    path = write(tmp_path, "port = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("port = 2\n")
    environment = {"ATOMSTREAM_SERVER_CONFIG": str(path), "ATOMSTREAM_ENDPOINT": "http://x", "PATH": "/bin"}
    assert merged({}, environment, None, LIMITS)["port"] == 1
    assert merged({}, environment, other, LIMITS)["port"] == 2


def test_paths_in_a_file_start_at_its_folder(tmp_path: Path) -> None:
    """Relative paths start at the folder of the file, wherever the server is started."""
    path = write(tmp_path, 'data = "rheed"\ntls_cert = "/etc/cert.pem"\ntls_key = "keys/key.pem"\n')
    values = merged({}, {}, path, LIMITS)
    assert values["data"] == tmp_path / "rheed"
    assert values["tls_cert"] == Path("/etc/cert.pem")
    assert values["tls_key"] == tmp_path / "keys" / "key.pem"


def test_tls_is_one_choice(tmp_path: Path) -> None:
    """A flag for one kind of certificate replaces the other kind from the file, and "off" replaces both."""
    path = write(tmp_path, 'tls_cert = "c.pem"\ntls_key = "k.pem"\n')
    for chosen in ("self-signed", "off"):
        values = merged({"tls": chosen}, {}, path, LIMITS)
        assert (values["tls"], values["tls_cert"], values["tls_key"]) == (chosen, None, None)
    path = write(tmp_path, 'tls = "self-signed"\n')
    values = merged({"tls_cert": Path("c"), "tls_key": Path("k")}, {}, path, LIMITS)
    assert (values["tls"], values["tls_cert"]) == ("off", Path("c"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "Did you mean port"),
        ("max_uploads = 1", "not a setting"),
        ("[limits]\nmax_upload = 1", "Did you mean max_uploads"),
        ("[limits]\nport = 1", "not a setting"),
        ("limits = 1", "not a table"),
        ('port = "8765"', "whole number"),
        ("port = true", "whole number"),
        ("[limits]\nsilence_s = true", "number"),
        ("[limits]\nmax_uploads = 1.5", "whole number"),
        ("host = 1", "string in quotes"),
        ('data = " "', "empty"),
        ('allowed_hosts = "a"', "list"),
        ("allowed_hosts = [1]", "list"),
        ("insecure_network = 1", "true or false"),
        ('tls = "yes"', "off, self-signed"),
        ('log_format = "xml"', "text, json"),
        (f'api_key = "{KEY}"', "api_key_file"),
        ("port = ", "not TOML"),
        ("[a]\n[a]", "not TOML"),
        ("[table]\nx = 1", "not a setting"),
        ('data = "a\\u0000b"', "control characters"),
        ('allowed_hosts = ["a\\nb"]', "control characters|list of strings"),
        (f"[limits]\nsilence_s = {'9' * 400}", "400 digits"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, message: str) -> None:
    """Each is an error that names the file and what is expected; none is ignored. The key is not repeated."""
    with pytest.raises(ConfigError, match=message) as caught:
        merged({}, {}, write(tmp_path, text), LIMITS)
    assert KEY not in str(caught.value)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    """A file that is missing, a folder, not text, or too long is an error that names it."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long").write_bytes(b"#" * (1 << 21))
    for name in ("missing", ".", "binary", "long"):
        with pytest.raises(ConfigError, match="configuration file"):
            merged({}, {}, tmp_path / name, LIMITS)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("PROT", "1", "Did you mean ATOMSTREAM_SERVER_PORT"),
        ("PORT", "many", "whole number"),
        ("SILENCE_S", "long", "number"),
        ("INSECURE_NETWORK", "maybe", "neither true nor false"),
        ("HOST", " ", "empty"),
        ("TLS", "yes", "off, self-signed"),
        ("DATA", "~nobody-here/x", "Write the whole path"),
    ],
)
def test_mistakes_in_the_environment(variable: str, text: str, message: str) -> None:
    """Each is an error that names the variable or what is expected."""
    with pytest.raises(ConfigError, match=message):
        merged({}, {PREFIX + variable: text}, None, LIMITS)


def test_each_setting_has_a_flag_and_is_documented() -> None:
    """Every name of the file is an option of the command and a line of the table in ``docs/server.md``."""
    page = (REPO / "docs" / "server.md").read_text(encoding="utf-8")
    options = {one.name for one in serve.params if isinstance(one, click.Option)}
    for name in PLAIN:
        assert name in options
        assert re.search(rf"^\| `{name}` \| .*`{PREFIX}{name.upper()}`", page, re.MULTILINE), name


def test_the_table_of_limits_is_complete() -> None:
    """Each limit is one entry of the table in ``docs/server.md``, with its default; no other name is in it."""
    page = (REPO / "docs" / "server.md").read_text(encoding="utf-8")
    table = page.partition("\n## Limits\n")[2].partition("\n## ")[0]
    listed: dict[str, float] = {}
    for row in re.findall(r"^\| (`.*?`) \| ([0-9., ]+) \|", table, re.MULTILINE):
        names, defaults = re.findall(r"`(\w+)`", row[0]), row[1].split(", ")
        listed.update(zip(names, map(float, defaults), strict=True))
    assert listed == LIMITS


def test_the_command_uses_them(tmp_path: Path) -> None:
    """Invalid values of a file reach the command as its error; a valid file is used as a whole."""
    path = write(tmp_path, "[limits]\nmax_uploads = 0\n")
    refused = atomstream_here("serve", "--config", path, "--data", tmp_path / "data")
    assert (refused.returncode, "max_uploads=0 is out of range" in refused.stderr) == (2, True)


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_host_that_is_not_a_name(tmp_path: Path, check: tuple[str, ...]) -> None:
    """A name that the system can't even look up is an error with its setting, at the start and before it."""
    refused = atomstream_here(
        "serve", "--port", "0", "--data", tmp_path, "--insecure-network", "--host", "..", *check
    )
    assert refused.returncode == 2
    assert "host='..' is neither an address nor a name of a computer" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_can_not_be_printed(tmp_path: Path) -> None:
    """A path whose bytes are not a text is shown with escapes; the command does not end with a traceback."""
    named = tmp_path / os.fsdecode(b"\xff")
    done = atomstream("serve", "--port", "0", "--data", named, "--check")
    assert (done.returncode, "\\udcff would be made" in done.stdout) == (0, True), done.stderr


def test_a_server_with_a_file_and_json_logs(tmp_path: Path) -> None:
    """Each line on stderr is one object; requests are logged from level info on; no key is in them."""
    (tmp_path / "key").write_text(KEY)
    path = write(
        tmp_path, 'port = 0\napi_key_file = "key"\ndata = "data"\nlog_format = "json"\nlog_level = "info"\n'
    )
    with running("serve", "--config", path) as command:
        command.wait_for("atomstream listens at http://127.0.0.1:")
        command.interrupt()
        assert command.end() == 0
    lines = [json.loads(line) for line in command.text.splitlines() if "atomstream listens at" not in line]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    assert f"Data folder  {tmp_path / 'data'}" in [line["message"] for line in lines]
    assert any(line["message"].startswith("stopping") and line["level"] == "INFO" for line in lines)
    assert KEY not in command.text


def test_a_record_as_json() -> None:
    """Line breaks and tracebacks stay within one line; the time is UTC."""
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord(
            "atomstream.x", logging.ERROR, "", 0, "it %s\nfailed", ("all",), sys.exc_info()
        )
    record.created = 0.25
    line = JsonFormatter().format(record)
    assert "\n" not in line
    shown = json.loads(line)
    assert shown.pop("exception").endswith("ValueError: first\nsecond")
    assert shown == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "ERROR",
        "logger": "atomstream.x",
        "message": "it all\nfailed",
    }
