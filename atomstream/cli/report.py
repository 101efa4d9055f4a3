"""The table at the end: what was sent, what is stored, what is not."""

from __future__ import annotations

from atomstream.cli.exits import ExitCode
from atomstream.cli.playback import Outcome
from atomstream.records import ClockStatus
from atomstream.streaming.status import StreamStats


def table(rows: list[tuple[str, str]]) -> str:
    """Names in one column, what they are in another."""
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows)


def playback_report(outcome: Outcome) -> str:
    """What ``atomstream stream`` says at its end."""
    rows = [("Stream", outcome.data_id), *delivery_rows(outcome), ("Clock", clock_text(outcome.clock))]
    return f"{table(rows)}\n{verdict(outcome)}"


def delivery_rows(outcome: Outcome) -> list[tuple[str, str]]:
    """Frames, chunks and bytes; what is missing is named."""
    stats = outcome.stats
    stream = stats["streams"][outcome.data_id]
    rows = [
        ("Frames", f"{outcome.frames_read} read, {stats['frames_stored']} stored"),
        ("Chunks", f"{stream['chunks_stored']} of {stream['chunks_accepted']} stored"),
        ("Size", _size(stats["raw_bytes_encoded"], stats["bytes_encoded"])),
        ("Time", f"{outcome.seconds:.1f} s, {stats['frames_stored'] / outcome.seconds:.0f} frames a second"),
    ]
    if stream["chunks_pending"]:
        rows.append(("Undelivered", _undelivered(stream)))
    rows += [(f"Lost {index}", reason) for index, reason in outcome.lost[:10]]
    if len(outcome.lost) > 10:
        rows.append(("Lost", f"{len(outcome.lost) - 10} more chunks"))
    return rows


def _undelivered(stream: StreamStats) -> str:
    pending = stream["chunks_pending"]
    on_disk = pending - stream["chunks_in_memory_only"]
    return f"{pending} chunks; {on_disk} are kept on disk, and the next run for this server delivers them"


def _size(raw: int, encoded: int) -> str:
    ratio = f" (ratio {raw / encoded:.2f})" if encoded else ""
    return f"{raw / 1e6:.1f} MB of pixels, {encoded / 1e6:.1f} MB on the network{ratio}"


def clock_text(clock: ClockStatus | None) -> str:
    """How this computer's clock stands to the server's."""
    if clock is None:
        return "not measured against the server's"
    return f"offset to the server's {clock['offset_ms']:+.2f} ms, known to {clock['uncertainty_ms']:.2f} ms"


def verdict(outcome: Outcome) -> str:
    """The last line."""
    if outcome.exit_code is ExitCode.INCOMPLETE:
        return "INCOMPLETE: not everything that was read is stored."
    if outcome.interrupted:
        return "Interrupted: everything that was read before is stored."
    if outcome.source_problem:
        return "The source broke off: everything that was read before is stored."
    return "Complete: every frame is stored."
