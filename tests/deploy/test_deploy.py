"""The files in ``deploy/``: what they state is true of this version."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import click
import pytest

from atomstream.cli import commands
from atomstream.cli.configuration import DEFAULTS, PREFIX, merged
from atomstream.server import ServerSettings
from atomstream.server.retention_rules import RetentionSettings
from tests.paths import REPO

DEPLOY = REPO / "deploy"
MOST_EXPOSED = 3.0


def unit() -> dict[str, str]:
    """The section ``[Service]`` of the unit."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "atomstream.service", encoding="utf-8")
    return dict(parser["Service"])


def check_command(words: list[str]) -> None:
    """Check that a command line of the deploy files is one of ours: its command, its options."""
    command = commands.commands[words[0]]
    options = {flag for one in command.params if isinstance(one, click.Option) for flag in one.opts}
    assert {word for word in words[1:] if word.startswith("--")} <= options


def test_the_unit_is_sandboxed(tmp_path: Path) -> None:
    """systemd's own rating is below 3 of 10."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("no systemd-analyze on this machine")
    file = shutil.copy(DEPLOY / "atomstream.service", tmp_path)
    done = subprocess.run(
        [tool, "security", "--offline=true", "--no-pager", file], capture_output=True, text=True, check=False
    )
    rating = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if rating is None:
        pytest.skip(f"this systemd-analyze can't rate a file: {done.stderr[:200]}")
    assert float(rating[1]) < MOST_EXPOSED


def test_the_unit_starts_this_command() -> None:
    """Command and options exist; it stops by the signal and within the time that the server needs; its port is ours."""
    service = unit()
    words = service["ExecStart"].split()
    assert words[0] == "/opt/atomstream/bin/atomstream"
    check_command(words[1:])
    assert float(service["TimeoutStopSec"]) > ServerSettings.limits()["shutdown_s"]
    assert service["SocketBindAllow"] == f"tcp:{DEFAULTS['port']}"
    assert int(service["LimitNOFILE"]) > ServerSettings.limits()["max_connections"] * 8 / 5
    assert f"{service['StateDirectory']}" in words[words.index("--data") + 1]


def test_the_container_starts_this_command() -> None:
    """Command, port, user and extras of the Dockerfile are those of this version."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    command = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert command is not None
    check_command(re.findall(r'"([^"]*)"', command[1]))
    assert f"EXPOSE {DEFAULTS['port']}" in text
    assert re.search(r"^USER 10001$", text, re.MULTILINE)  # a number: Kubernetes checks that it is not root
    project = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    assert '".[$EXTRAS]"' in text
    given = re.findall(r"^ARG EXTRAS=(\S+)$|--build-arg EXTRAS=(\S+)", text, re.MULTILINE)
    assert len(given) == 2
    assert all(f"\n{extra} = [" in project for pair in given for extra in "".join(pair).split(","))
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        assert all((REPO / name).exists() for name in copied.split())


def test_the_variables_of_the_compose_file_exist() -> None:
    """Each variable of the compose file is a setting, and all of them together are a valid configuration."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    given = dict(re.findall(rf"^      ({PREFIX}[A-Z_]+): (\S+)$", text, re.MULTILINE))
    values = merged({}, given, None, ServerSettings.limits())
    assert values["tls"] == "self-signed"
    named = set(re.findall(rf"{PREFIX}([A-Z_]+)", text))
    assert {name.lower() for name in named} <= DEFAULTS.keys() | ServerSettings.limits().keys()
    shared = re.search(r"shm_size: (\d+)m", text)
    assert shared is not None
    assert int(shared[1]) << 20 > ServerSettings.limits()["analysis_shared_bytes"]


@pytest.mark.parametrize("commented", [True, False])
def test_the_configuration_is_valid(tmp_path: Path, commented: bool) -> None:
    """The example configuration is valid, also with its commented example of rules."""
    text = (DEPLOY / "server.toml").read_text(encoding="utf-8")
    path = tmp_path / "server.toml"
    path.write_text(text if commented else re.sub(r"^# (?=\[|\w+ =)", "", text, flags=re.MULTILINE))
    values = merged({}, {}, path, ServerSettings.limits())
    assert values["allowed_hosts"] == ("mbe-pc.lab.local",)
    assert commented == (values["retention"] is None)
    assert commented or isinstance(values["retention"], RetentionSettings)


def test_the_bill_of_materials_is_of_the_server() -> None:
    """The script is executable, installs this package, and its tool is one that exists."""
    path = DEPLOY / "sbom"
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o111
    assert 'pip" install --quiet ".[server,video]"' in text
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
