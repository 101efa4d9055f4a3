"""Processes that atomstream starts of itself: as Python, and inside a frozen application."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import atomstream
from atomstream.errors import ConfigError
from atomstream.system import child_process
from atomstream.system.child_process import CHILD_ARGUMENT, child_command, child_environment
from tests.paths import REPO

WORKER = "atomstream.server.live.worker_entry"

APPLICATION = """
import sys
sys.frozen = True
sys.executable = sys.argv.pop(1)
import atomstream
if __name__ == "__main__":
    {hook}
    from atomstream.system.child_process import child_command
    print("the application", *child_command("atomstream.cli.embedded_child")[1:])
"""


def run(folder: Path, hook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script that behaves as a frozen application does."""
    script = folder / "application.py"
    script.write_text(APPLICATION.format(hook=hook))
    return subprocess.run(
        [sys.executable, str(script), "application", *arguments],
        input="{}\n", env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_frozen_application_is_asked_by_its_arguments(tmp_path: Path) -> None:
    """With the hook the application names the arguments for a child, and with them it is the child and nothing else."""
    done = run(tmp_path, "atomstream.freeze_support()")
    assert done.stdout.split() == ["the", "application", CHILD_ARGUMENT, "atomstream.cli.embedded_child"]
    child = run(tmp_path, "atomstream.freeze_support()", CHILD_ARGUMENT, "atomstream.cli.embedded_child")
    assert "the application" not in child.stdout
    assert "data_dir" in child.stderr  # the child's main() ran, and refused the empty settings
    other = run(tmp_path, "atomstream.freeze_support()", CHILD_ARGUMENT, "os")
    assert other.stdout.startswith("the application")


def test_a_frozen_application_without_the_hook_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the function to call, and where."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(child_process, "_supported", [])
    with pytest.raises(ConfigError, match=r"atomstream\.freeze_support\(\) in the first lines"):
        child_command(WORKER)
    monkeypatch.setattr(sys, "argv", ["application", "--atomstream"])
    atomstream.freeze_support()
    assert child_command(WORKER) == (sys.executable, CHILD_ARGUMENT, WORKER)


def test_only_modules_of_this_package_are_started() -> None:
    """Another name is a mistake of the program."""
    with pytest.raises(ValueError, match="os is not one of"):
        child_command("os")


def test_relative_entries_of_the_path_do_not_reach_a_child(tmp_path: Path) -> None:
    """An empty entry of PYTHONPATH means the present folder; a child gets none, and the others as absolute ones."""
    given = os.pathsep.join(["", str(tmp_path), "lab", ""])
    made = child_environment({"PYTHONPATH": given, "HOME": "/h"})
    assert made == {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.path.abspath("lab")]), "HOME": "/h"}
    assert "PYTHONPATH" not in child_environment({"PYTHONPATH": os.pathsep})
