"""What ``atomstream demo`` does: serve, film, stream, verify, tell."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import zarr

from atomstream.cli.console import console
from atomstream.cli.demo_results import DemoResults
from atomstream.cli.embedded import EmbeddedServer, embedded_server
from atomstream.cli.exits import ExitCode
from atomstream.cli.playback import Outcome, Playback, leaving
from atomstream.cli.report import clock_text, table
from atomstream.cli.verify import Verification, digest, verify_archive
from atomstream.sources import GrowthSpec, Simulator, paced
from atomstream.streaming import RHEEDStreamer

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
