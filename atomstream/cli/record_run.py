"""The steps of ``atomstream record``: serve the page, open the browser, and end safely at Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from atomstream.cli.console import console, printable
from atomstream.cli.exit_codes import ExitCode
from atomstream.counted import counted
from atomstream.login import NO_SERVER
from atomstream.record.capture import CapturePlan
from atomstream.record.recorder import Recorder
from atomstream.record.recording import RecordingRequest
from atomstream.record.recordings_log import RecordingEntry
from atomstream.record.settings import RecorderSettings
from atomstream.record.snapshot import clock_text, snapshot, span_text, state_line
from atomstream.record.states import RecorderState
from atomstream.record.web.app import listen, serving, url_of
from atomstream.system.log_privacy import get_logger

LINE_S: Final = 0.5
LOG_LINE_S: Final = 30.0
"""Interval in s of the line with the state: on a terminal, and in a log file."""

FROM_FIRST_FRAME_S: Final = 1e6
"""Value of ``before_s`` for a recording that begins with the command: all frames since the camera was opened."""

QUIET_LOGGERS: Final = ("atomstream.forecast", "atomstream.frames", "atomstream.service.clock")
"""Loggers whose messages are hidden: the page and the line in the terminal show the same facts."""


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """What the command was asked to do; ``request`` is given if it records at once."""

    settings: RecorderSettings
    capture: CapturePlan | None
    request: RecordingRequest | None
    name: str
    port: int
    open_page: bool
    seconds: float | None


def run_record(plan: RecordPlan) -> int:
    """Run the recorder until Ctrl-C; returns the exit code."""
    with _quiet_logs():
        return asyncio.run(_run(plan))


async def _run(plan: RecordPlan) -> int:
    listening = listen(plan.port)
    url = url_of(listening)
    settings = replace(plan.settings, page=url)
    ended = asyncio.Event()
    with _ending(ended):
        recorder = Recorder(settings, console.write)
        try:
            await recorder.start()
            if plan.capture is not None:
                await recorder.open_source(plan.capture)
            async with serving(listening, recorder) as sessions:
                _announce(plan, url, sessions.make_link(), sessions.key)
                if plan.request is not None:
                    name = plan.name or _default_name()
                    await recorder.record(replace(plan.request, name=name, before_s=FROM_FIRST_FRAME_S))
                await _until_ended(plan, recorder, ended)
                console.clear_live()
                if recorder.state is not RecorderState.IDLE:
                    console.write("Stopping: the recording is being saved.")
                await recorder.close()
        except BaseException:  # also a second Ctrl-C: what was saved is printed in any case
            await recorder.close()
            if recorder.finished:
                console.write(_summary(recorder))
            raise
        finally:
            listening.close()
            console.clear_live()
    console.write(_summary(recorder))
    return ExitCode.DONE


async def _until_ended(plan: RecordPlan, recorder: Recorder, ended: asyncio.Event) -> None:
    """Show the line with the state until Ctrl-C, or the end of a recording that the command line began."""
    terminal, elapsed = console.is_terminal, 0.0
    while not ended.is_set():
        values = await snapshot(recorder)
        if terminal:
            console.show_live(state_line(values))
        elif elapsed >= LOG_LINE_S:
            elapsed = 0.0
            console.write(state_line(values))
        if plan.request is not None and recorder.state is RecorderState.IDLE:
            return
        seconds = values["recording"]["seconds"] if values["recording"] else 0.0
        if plan.seconds is not None and seconds >= plan.seconds and recorder.state is RecorderState.RECORDING:
            await recorder.stop()
        try:
            async with asyncio.timeout(LINE_S):
                await ended.wait()
        except TimeoutError:
            elapsed += LINE_S


def _announce(plan: RecordPlan, url: str, link: str, key: str) -> None:
    opened = False
    if plan.open_page:
        try:
            opened = webbrowser.open(url + link)
        except webbrowser.Error:
            opened = False
    if opened:
        console.write(f"The page is open in your browser: {url}")
    else:
        console.write(f"Open this address in a browser of this computer; it logs in once: {url}{link}")
    console.write(
        f"In another browser log in with the key {key}\n"
        "Only this computer can open the page. Ctrl-C ends a recording and saves it."
    )
    if plan.settings.login_note:
        console.write(plan.settings.login_note)


def _summary(recorder: Recorder) -> str:
    """What was recorded in this run, and where it is."""
    mine = [recorder.entry_of(one) for one in recorder.finished if one.data_id]
    if not mine:
        return "Nothing was recorded."
    return "\n".join(_describe(entry) for entry in reversed(mine))


def _describe(entry: RecordingEntry) -> str:
    saved = "" if entry.ended_ms is None else f", saved up to {clock_text(entry.ended_ms)}"
    if entry.state == "sent":
        place = f"all on {entry.endpoint}"
    elif entry.endpoint == NO_SERVER.endpoint:
        place = "on this computer; after `atomstream login` the next start, or `atomstream spool resume`, sends it"
    else:
        place = f"on this computer; the next start, or `atomstream spool resume`, sends the rest to {entry.endpoint}"
    name = printable(entry.name)
    frames = counted(entry.frames, "frame")
    return f"Recorded {name}: {span_text(entry.seconds)}, {frames}, {entry.lost} lost{saved} ({place})."


def _default_name() -> str:
    return f"RHEED {datetime.now():%Y-%m-%d %H:%M}"


@contextmanager
def _ending(ended: asyncio.Event) -> Iterator[None]:
    """Set ``ended`` at Ctrl-C, SIGTERM and Ctrl-Break; a second one interrupts at once."""
    loop = asyncio.get_running_loop()
    names = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before: dict[int, Any] = {}

    def end(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(ended.set)
        signal.signal(number, signal.default_int_handler)

    for number in numbers:
        before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _ForPrograms(logging.Filter):
    """Removes messages for programmers: about the placeholder server of local recordings, and about arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a message that is removed."""
        text = record.getMessage()
        return not any(
            words in text for words in (NO_SERVER.endpoint, "chunks in the spool", "buffer_bytes=")
        )


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Suppress log messages whose content the recorder shows itself."""
    removed = _ForPrograms()
    handlers = get_logger("atomstream").handlers
    quiet = [get_logger(name) for name in QUIET_LOGGERS]
    for handler in handlers:
        handler.addFilter(removed)
    for logger in quiet:
        logger.disabled = True
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(removed)
        for logger in quiet:
            logger.disabled = False
