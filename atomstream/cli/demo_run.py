"""The steps of ``atomstream demo``: start a server, simulate, stream, verify the archive, and report."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import click
import numpy as np
import numpy.typing as npt
import zarr

from atomstream.cli.console import Console, console
from atomstream.cli.demo_page import keep_open, open_page
from atomstream.cli.embedded import EmbeddedServer, embedded_server
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.playback import Outcome, Playback, clock_text, closing_soon, table
from atomstream.errors import AtomstreamError
from atomstream.sources import GrowthSpec, Simulator, paced
from atomstream.streaming import RHEEDStreamer

REPORT_INTERVAL_S: Final = 3.0
"""Interval in s at which live results are printed."""

FINAL_RESULTS_S: Final = 20.0
"""Longest wait in s for the last results after the end of the stream."""


class DemoResults:
    """Prints live results next to the simulated values, in a thread, for the duration of a ``with`` block.

    The end of the block waits for the last results.
    """

    def __init__(self, console: Console, streamer: RHEEDStreamer, data_id: str, simulator: Simulator) -> None:
        self._console = console
        self._streamer = streamer
        self._data_id = data_id
        self._simulator = simulator
        self._thread = threading.Thread(target=self._follow, name="atomstream-demo-results", daemon=True)
        self._newest: Any = None
        self._frames = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(FINAL_RESULTS_S if error is None else 0.0)

    def rows(self) -> list[tuple[str, str]]:
        """Return the last results for the report, each with the simulated value."""
        if self._newest is None:
            return [("Analysis", "no result arrived in time")]
        truth = self._truth()
        return [
            (name, f"{value} (simulated: {truth[name]})") for name, value in self._latest_values().items()
        ]

    def _follow(self) -> None:
        last_report = time.monotonic()
        try:
            for batch in self._streamer.results(self._data_id):
                self._newest = batch
                self._frames = max(self._frames, batch.start + batch.count)
                if time.monotonic() > last_report + REPORT_INTERVAL_S and batch.growth_rate_ml_s is not None:
                    last_report = time.monotonic()
                    self._console.write(self._line())
        except AtomstreamError as error:
            self._console.write(f"atomstream: no more results: {error}")

    def _line(self) -> str:
        truth = self._truth()
        parts = [f"{name.lower()} {value} [{truth[name]}]" for name, value in self._latest_values().items()]
        return f"  analysed {self._frames} frames: " + ", ".join(parts)

    def _latest_values(self) -> dict[str, str]:
        values = {
            "Growth rate": "growth_rate_ml_s",
            "Layers": "layers_grown",
            "Streak spacing": "lattice_spacing",
        }
        return {name: _short(self._newest.value(key)) for name, key in values.items()}

    def _truth(self) -> dict[str, str]:
        truth = self._simulator.truth([max(0, self._frames - 1)])
        return {
            "Growth rate": f"{float(truth.rate_ml_s[0]):.4g} ML/s",
            "Layers": f"{float(truth.layers[0]):.2f}",
            "Streak spacing": f"{float(truth.spacing_px[0]):.2f} px",
        }


def _short(measured: Any) -> str:
    """Format a result without its notes, which the dashboard shows."""
    if measured.value is None:
        return f"undetermined: {measured.why}"
    return f"{measured.value:.4g} ± {measured.sigma or 0.0:.2g} {measured.unit}"


# Verification: the archive on disk is read with zarr-python and compared frame by frame with what was sent. Only a
# digest of each frame sent is kept (BLAKE2b, 128 bits): this saves half a gigabyte, and does not rely on any checksum
# of client or server.

Stack: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of the comparison: numbers of frames sent, stored, equal to those sent, and with a capture time.

    ``first_difference`` is the number of the first frame that differs, None if there is none.
    """

    sent: int
    stored: int
    equal: int
    timed: int
    first_difference: int | None

    @property
    def passed(self) -> bool:
        """True if the archive contains exactly the frames that were sent, each with a capture time."""
        return self.sent == self.stored == self.equal == self.timed


def digest(frame: Stack) -> bytes:
    """Return the digest of the pixels of a frame (H, W)."""
    return blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest()


def verify_archive(path: Path, sent: Sequence[bytes], on_progress: Callable[[int], None]) -> Verification:
    """Compare the archive at ``path`` with the frames whose digests are ``sent``, in order.

    Reads shard by shard, so at most three chunks are in memory. ``on_progress`` gets the number of frames done.
    """
    group: Any = zarr.open_group(path, mode="r")
    frames, time = group["frames"], np.asarray(group["time"][:])
    equal = 0
    first_difference: int | None = None
    for start, stored in _read_ahead(frames, min(len(sent), frames.shape[0])):
        same = [digest(frame) == sent[start + k] for k, frame in enumerate(stored)]
        equal += sum(same)
        if first_difference is None and not all(same):
            first_difference = start + same.index(False)
        on_progress(start + len(stored))
    timed = int(np.isfinite(time[: len(sent)]).sum())
    return Verification(len(sent), frames.shape[0], equal, timed, first_difference)


def _read_ahead(frames: Any, n_frames: int) -> Iterator[tuple[int, Stack]]:
    """Yield (first frame, frames) shard by shard; the next shard is read while the caller compares this one."""
    step = frames.shards[0]
    with ThreadPoolExecutor(1, thread_name_prefix="atomstream-verify") as reader:
        ahead: deque[tuple[int, Future[Stack]]] = deque()
        for start in range(0, n_frames, step):
            part = slice(start, min(start + step, n_frames))
            ahead.append((start, reader.submit(frames.__getitem__, part)))
            if len(ahead) == 2:
                yield _next_result(ahead)
        while ahead:
            yield _next_result(ahead)


def _next_result(ahead: deque[tuple[int, Future[Stack]]]) -> tuple[int, Stack]:
    start, future = ahead.popleft()
    return start, future.result()


Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Settings of a demo run."""

    n_frames: int
    fps: float
    height: int
    width: int
    rpm: float
    seed: int
    data_dir: Path
    port: int
    open_page: bool = False

    @property
    def nbytes(self) -> int:
        """Size of all frames in bytes, uncompressed."""
        return self.n_frames * self.height * self.width

    @property
    def chunk_size(self) -> int:
        """Frames per chunk: two seconds of frames."""
        return max(1, math.ceil(2.0 * self.fps))

    def simulator(self) -> Simulator:
        """Make a simulator; each one gives the same frames."""
        spec = GrowthSpec(self.height, self.width, self.fps, self.seed, rpm=self.rpm)
        return Simulator(spec)


class DemoCamera:
    """A simulated camera whose driver passes frames one by one to ``push_frame``.

    ``digests`` are those of the frames sent, ``push_times_s`` the duration of each call, ``seconds`` that of all.
    """

    def __init__(self, plan: DemoPlan, streamer: RHEEDStreamer, data_id: str) -> None:
        self._plan = plan
        self._streamer = streamer
        self._data_id = data_id
        self.digests: list[bytes] = []
        self.push_times_s: list[float] = []
        self.seconds = 0.0
        self._start_ms: float | None = None

    def frames(self) -> Iterator[Frame]:
        """Yield frames (H, W) in real time."""
        chunks = self._plan.simulator().chunks(1, self._plan.n_frames)
        start = time.perf_counter()
        for frame in paced((chunk[0] for chunk in chunks), self._plan.fps):
            yield frame
            self.seconds = time.perf_counter() - start

    def _first_ms(self) -> float:
        # The time of exposure, which is right also if a busy computer receives the frame late.
        if self._start_ms is None:
            clock = self._streamer.clock_status()
            self._start_ms = 1000.0 * time.time() + (clock["offset_ms"] if clock else 0.0)
        return self._start_ms

    def send(self, frame: Frame) -> int:
        """Push one frame as the callback of a camera would; return 1."""
        number = len(self.digests)
        self.digests.append(digest(frame))
        exposed_ms = self._first_ms() + 1000.0 * number / self._plan.fps
        start = time.perf_counter()
        self._streamer.push_frame(self._data_id, frame, exposed_ms, frame_id=number)
        self.push_times_s.append(time.perf_counter() - start)
        return 1


def run_demo(plan: DemoPlan) -> int:
    """Run the demo and return its exit code."""
    console.write(
        f"Filming {plan.n_frames} frames of {plan.height}x{plan.width} at {plan.fps:g} fps "
        f"({plan.n_frames / plan.fps:.1f} s), a simulated growth"
    )
    with embedded_server(plan.data_dir, plan.port) as server:
        console.write(f"Server at {server.url}, in a child process")
        console.write(f"Dashboard while the demo runs: {server.url}/ (key: {server.api_key})")
        outcome, camera, results = _film(plan, server)
        if not camera.push_times_s:
            console.write("No frame was sent, so there is nothing to compare.")
            return outcome.exit_code
        archive = plan.data_dir / "streams" / outcome.data_id / "frames.zarr"
        verification = _verify(archive, _accepted_digests(outcome, camera.digests))
        click.echo(_report(plan, outcome, camera, verification, results, archive))
        if plan.open_page and not outcome.interrupted:
            keep_open(server, outcome.data_id)
    return _exit_code(outcome, verification)


def _film(plan: DemoPlan, server: EmbeddedServer) -> tuple[Outcome, DemoCamera, list[tuple[str, str]]]:
    # A separate spool: other programs must not deliver the chunks of a demo that was killed.
    spool = plan.data_dir / "spool"
    with closing_soon(RHEEDStreamer(server.api_key, server.url, spool_dir=spool)) as streamer:
        data_id = streamer.initialize(plan.fps, plan.rpm, plan.chunk_size, "atomstream demo")
        if plan.open_page:
            open_page(server, data_id)
        camera = DemoCamera(plan, streamer, data_id)
        playback = Playback(console, streamer, data_id, plan.n_frames)
        with DemoResults(console, streamer, data_id, plan.simulator()) as results:
            outcome = playback.run(camera.frames(), camera.send)
        return outcome, camera, results.rows()


def _accepted_digests(outcome: Outcome, digests: list[bytes]) -> list[bytes]:
    """Return the digests without the last frame, if Ctrl-C came before it was accepted."""
    cut_off = outcome.interrupted and outcome.stats["frames_encoded"] == len(digests) - 1
    return digests[:-1] if cut_off else digests


def _verify(archive: Path, sent: list[bytes]) -> Verification:
    def show_progress(done: int) -> None:
        if console.is_terminal:
            console.show_live(f"Comparing the archive with the frames sent: {done}/{len(sent)} frames")

    try:
        return verify_archive(archive, sent, show_progress)
    finally:
        console.clear_live()


def _exit_code(outcome: Outcome, verification: Verification) -> ExitCode:
    return outcome.exit_code if verification.passed else ExitCode.INCOMPLETE


def _report(
    plan: DemoPlan, outcome: Outcome, camera: DemoCamera, verification: Verification,
    results: list[tuple[str, str]], archive: Path,
) -> str:  # fmt: skip
    stats, chunks = outcome.stats, outcome.stats["streams"][outcome.data_id]["chunks_stored"]
    raw, encoded = stats["raw_bytes_encoded"], max(1, stats["bytes_stored"])
    rows = [
        ("Sent", f"{verification.sent} frames, {raw / 1e6:.0f} MB of pixels, {_rate_text(camera, plan.fps)}"),
        (
            "Stored",
            f"{verification.stored} frames in {chunks} chunks, {encoded / 1e6:.0f} MB (ratio {raw / encoded:.2f})",
        ),
        (
            "Equal",
            f"{verification.equal} of {verification.sent} frames, all pixels, read by zarr-python {zarr.__version__}",
        ),
        ("Timed", f"{verification.timed} of {verification.sent} frames have their capture time"),
        ("push_frame", _push_time_text(camera.push_times_s, plan.fps)),
        ("Clock", clock_text(outcome.clock)),
        *results,
        ("Archive", str(archive)),
    ]
    return f"\n{table(rows)}\n\n{_verdict(outcome, verification)}"


def _rate_text(camera: DemoCamera, fps: float) -> str:
    rate = len(camera.digests) / max(camera.seconds, 1e-9)
    slow = "" if rate > 0.98 * fps else f": this computer is too busy to simulate {fps:g}"
    return f"{rate:.1f} per second{slow}"


def _push_time_text(seconds: list[float], fps: float) -> str:
    ms = 1000.0 * np.array(seconds)
    return (
        f"median {np.median(ms):.2f} ms, p99 {np.percentile(ms, 99):.2f} ms, longest {ms.max():.2f} ms "
        f"(frame period {1000.0 / fps:.2f} ms)"
    )


def _verdict(outcome: Outcome, verification: Verification) -> str:
    if verification.passed and outcome.interrupted:
        return "VERIFIED, though interrupted: every frame before Ctrl-C is in the archive, unchanged."
    if verification.passed:
        return "VERIFIED: every frame that was sent is in the archive, unchanged."
    if verification.first_difference is not None:
        return (
            f"DIFFERENT: frame {verification.first_difference} is the first that differs from what was sent."
        )
    return "INCOMPLETE: the archive does not contain all frames that were sent."
