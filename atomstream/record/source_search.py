"""The search for cameras, in a separate process.

Drivers take seconds to look for cameras, and some hold Python's global lock meanwhile, or never return: in the
recorder's process a running recording would stand still.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Final, NamedTuple

from atomstream.cameras import list_cameras
from atomstream.cameras.names import ADAPTERS
from atomstream.system.child_end import end_child
from atomstream.system.child_process import child_command, child_environment

LIMIT_S: Final = 20.0
"""Kinds of cameras whose driver has not answered after this time in s are left out."""


class FoundSource(NamedTuple):
    """A source that can be chosen: its name, and what it is."""

    name: str
    description: str


async def find_sources(limit_s: float = LIMIT_S) -> tuple[list[FoundSource], dict[str, str]]:
    """Search this computer for sources; also why some kinds were not searched."""
    child = await asyncio.create_subprocess_exec(
        *child_command("atomstream.record.source_search"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=child_environment(),
    )
    found = [FoundSource("simulator", "simulated growth, without a camera")]
    not_searched = dict.fromkeys(ADAPTERS, "its driver did not answer")
    assert child.stdout is not None
    try:
        async with asyncio.timeout(limit_s):
            async for line in child.stdout:
                _take(line, found, not_searched)
    except TimeoutError:
        pass
    finally:
        await end_child(child)
    return found, not_searched


def _take(line: bytes, found: list[FoundSource], not_searched: dict[str, str]) -> None:
    try:
        answer = json.loads(line)
        kind, cameras, problem = answer["kind"], answer["found"], answer["problem"]
    except (ValueError, KeyError, TypeError):  # drivers may print anything
        return
    not_searched.pop(kind, None)
    if problem:
        not_searched[kind] = problem
    found += [FoundSource(f"camera:{name}", description) for name, description in cameras if name != "sim"]


def main() -> None:
    """Search kind by kind, and print a line of JSON for each."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(
        sys.stderr.fileno(), sys.stdout.fileno()
    )  # stdout must contain the answers only, and drivers may print
    for kind in ADAPTERS:
        found, not_searched = list_cameras([kind])
        print(
            json.dumps({"kind": kind, "found": found, "problem": not_searched.get(kind, "")}),
            file=out,
            flush=True,
        )
