"""What ``atomstream demo`` does: serve, film, stream, verify, tell."""

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
from atomstream.cli.embedded import EmbeddedServer, embedded_server
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.playback import Outcome, Playback, clock_text, leaving, table
from atomstream.errors import AtomstreamError
from atomstream.sources import GrowthSpec, Simulator, paced
from atomstream.streaming import RHEEDStreamer

# The demo's live analysis, told beside what the simulator made: rate, layers, spacing.

SAY_S: Final = 3.0

LAST_S: Final = 20.0
"""How long the end of the analysis is waited for, once the stream has ended."""


class DemoResults:
    """Follows the stream's results in a thread of its own for as long as the block lasts, then to their end."""

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
        self._thread.join(LAST_S if error is None else 0.0)

    def rows(self) -> list[tuple[str, str]]:
        """What was found, for the report; each beside the simulator's truth."""
        if self._newest is None:
            return [("Analysis", "no result came in time")]
        truth = self._truth()
        return [(name, f"{found} (simulated: {truth[name]})") for name, found in self._found().items()]

    def _follow(self) -> None:
        said_at = time.monotonic()
        try:
            for batch in self._streamer.results(self._data_id):
                self._newest = batch
                self._frames = max(self._frames, batch.start + batch.count)
                if time.monotonic() > said_at + SAY_S and batch.growth_rate_ml_s is not None:
                    said_at = time.monotonic()
                    self._console.say(self._line())
        except AtomstreamError as error:
            self._console.say(f"atomstream: no more results: {error}")

    def _line(self) -> str:
        truth = self._truth()
        parts = [f"{name.lower()} {found} [{truth[name]}]" for name, found in self._found().items()]
        return f"  analysed {self._frames} frames: " + ", ".join(parts)

    def _found(self) -> dict[str, str]:
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
    """A result without its caveats, which the dashboard tells."""
    if measured.value is None:
        return f"undetermined: {measured.why}"
    return f"{measured.value:.4g} ± {measured.sigma or 0.0:.2g} {measured.unit}"


# The archive on disk, compared with what was sent, frame by frame, through zarr-python.
#
# What was sent is remembered as one digest a frame (BLAKE2b, 128 bits), taken when it was handed over: half a
# gigabyte of frames need not be kept, and the comparison trusts nothing that the client or the server computed.

Stack: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Verification:
    """How the archive compares: frames in it, frames equal to those sent, frames that have a capture time.

    ``first_difference`` is the number of the first frame that differs, None where none does.
    """

    sent: int
    stored: int
    equal: int
    timed: int
    first_difference: int | None

    @property
    def passed(self) -> bool:
        """Whether the archive holds the frames that were sent, all of them and no others."""
        return self.sent == self.stored == self.equal == self.timed


def digest(frame: Stack) -> bytes:
    """What a frame (H, W) is known by: its pixels, and nothing else."""
    return blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest()


def verify_archive(path: Path, sent: Sequence[bytes], on_progress: Callable[[int], None]) -> Verification:
    """Compare the archive at ``path`` with the frames whose digests are ``sent``, in their order.

    Reads shard by shard, so memory holds three chunks; ``on_progress`` is told how many frames are done.
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
    """Shard by shard from the disk; the next one is read while the caller looks at this one."""
    step = frames.shards[0]
    with ThreadPoolExecutor(1, thread_name_prefix="atomstream-verify") as reader:
        ahead: deque[tuple[int, Future[Stack]]] = deque()
        for start in range(0, n_frames, step):
            part = slice(start, min(start + step, n_frames))
            ahead.append((start, reader.submit(frames.__getitem__, part)))
            if len(ahead) == 2:
                yield _taken(ahead)
        while ahead:
            yield _taken(ahead)


def _taken(ahead: deque[tuple[int, Future[Stack]]]) -> tuple[int, Stack]:
    start, future = ahead.popleft()
    return start, future.result()


Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What is filmed, and where it is kept."""

    n_frames: int
    fps: float
    height: int
    width: int
    rpm: float
    seed: int
    data_dir: Path
    port: int

    @property
    def nbytes(self) -> int:
        """Of all pixels."""
        return self.n_frames * self.height * self.width

    @property
    def chunk_size(self) -> int:
        """Two seconds of frames."""
        return max(1, math.ceil(2.0 * self.fps))

    def simulator(self) -> Simulator:
        """The camera and the growth before it; the same frames from each one made."""
        spec = GrowthSpec(self.height, self.width, self.fps, self.seed, rpm=self.rpm)
        return Simulator(spec)


class DemoCamera:
    """The simulated camera, whose driver hands frames over one by one.

    ``digests`` are of the frames handed over, ``hand_over_s`` how long each hand-over took, ``seconds`` how long
    all of the filming did.
    """

    def __init__(self, plan: DemoPlan, streamer: RHEEDStreamer, data_id: str) -> None:
        self._plan = plan
        self._streamer = streamer
        self._data_id = data_id
        self.digests: list[bytes] = []
        self.hand_over_s: list[float] = []
        self.seconds = 0.0
        self._start_ms: float | None = None

    def frames(self) -> Iterator[Frame]:
        """Frames (H, W), each when it is exposed."""
        chunks = self._plan.simulator().chunks(1, self._plan.n_frames)
        began = time.perf_counter()
        for frame in paced((chunk[0] for chunk in chunks), self._plan.fps):
            yield frame
            self.seconds = time.perf_counter() - began

    def _first_ms(self) -> float:
        # A camera knows when it exposed a frame, however late a busy computer takes it over.
        if self._start_ms is None:
            clock = self._streamer.clock_status()
            self._start_ms = 1000.0 * time.time() + (clock["offset_ms"] if clock else 0.0)
        return self._start_ms

    def send(self, frame: Frame) -> int:
        """Hand one frame over, as a camera's callback would."""
        number = len(self.digests)
        self.digests.append(digest(frame))
        exposed_ms = self._first_ms() + 1000.0 * number / self._plan.fps
        began = time.perf_counter()
        self._streamer.push_frame(self._data_id, frame, exposed_ms, frame_id=number)
        self.hand_over_s.append(time.perf_counter() - began)
        return 1


def run_demo(plan: DemoPlan) -> int:
    """Run it; the exit code."""
    console.say(
        f"Filming {plan.n_frames} frames of {plan.height}x{plan.width} at {plan.fps:g} fps "
        f"({plan.n_frames / plan.fps:.1f} s), a simulated growth"
    )
    with embedded_server(plan.data_dir, plan.port) as server:
        console.say(f"Server at {server.url}, in a process of its own")
        console.say(f"Its dashboard, while this runs: {server.url}/ (key: {server.api_key})")
        outcome, camera, results = _film(plan, server)
        if not camera.hand_over_s:
            console.say("Nothing was filmed, so there is nothing to compare.")
            return outcome.exit_code
        archive = plan.data_dir / "streams" / outcome.data_id / "frames.zarr"
        verification = _verify(archive, _accepted(outcome, camera.digests))
    click.echo(_report(plan, outcome, camera, verification, results, archive))
    return _exit_code(outcome, verification)


def _film(plan: DemoPlan, server: EmbeddedServer) -> tuple[Outcome, DemoCamera, list[tuple[str, str]]]:
    # A spool of its own: what a killed demo leaves is nobody else's business.
    spool = plan.data_dir / "spool"
    with leaving(RHEEDStreamer(server.api_key, server.url, spool_dir=spool)) as streamer:
        data_id = streamer.initialize(plan.fps, plan.rpm, plan.chunk_size, "atomstream demo")
        camera = DemoCamera(plan, streamer, data_id)
        playback = Playback(console, streamer, data_id, plan.n_frames)
        with DemoResults(console, streamer, data_id, plan.simulator()) as results:
            outcome = playback.run(camera.frames(), camera.send)
        return outcome, camera, results.rows()


def _accepted(outcome: Outcome, digests: list[bytes]) -> list[bytes]:
    """Without the frame in whose very hand-over Ctrl-C came, where it was not taken."""
    cut_off = outcome.interrupted and outcome.stats["frames_encoded"] == len(digests) - 1
    return digests[:-1] if cut_off else digests


def _verify(archive: Path, sent: list[bytes]) -> Verification:
    def tell(done: int) -> None:
        if console.is_terminal:
            console.show(f"Comparing the archive with what was sent: {done}/{len(sent)} frames")

    try:
        return verify_archive(archive, sent, tell)
    finally:
        console.clear()


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
        ("push_frame", _hand_over_text(camera.hand_over_s, plan.fps)),
        ("Clock", clock_text(outcome.clock)),
        *results,
        ("Archive", str(archive)),
    ]
    return f"\n{table(rows)}\n\n{_verdict(outcome, verification)}"


def _rate_text(camera: DemoCamera, fps: float) -> str:
    rate = len(camera.digests) / max(camera.seconds, 1e-9)
    slow = "" if rate > 0.98 * fps else f": this computer is too busy to simulate {fps:g}"
    return f"{rate:.1f} a second{slow}"


def _hand_over_text(seconds: list[float], fps: float) -> str:
    ms = 1000.0 * np.array(seconds)
    return (
        f"median {np.median(ms):.2f} ms, p99 {np.percentile(ms, 99):.2f} ms, longest {ms.max():.2f} ms "
        f"(a frame lasts {1000.0 / fps:.2f} ms)"
    )


def _verdict(outcome: Outcome, verification: Verification) -> str:
    if verification.passed and outcome.interrupted:
        return "VERIFIED, though interrupted: every frame filmed before Ctrl-C is in the archive, unchanged."
    if verification.passed:
        return "VERIFIED: every frame that was sent is in the archive, unchanged."
    if verification.first_difference is not None:
        return f"DIFFERENT: frame {verification.first_difference} is the first that is not what was sent."
    return "INCOMPLETE: the archive does not hold all that was sent."
