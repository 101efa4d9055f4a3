"""Settings of a recorder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from atomstream.login import ServerLogin
from atomstream.record.dashcam import DashcamLimits

SPOOL_SHARE: Final = 0.9
"""Share of the free disk space that recordings may use. It is large because such a computer is there to record."""

DASHCAM_SHARE: Final = 0.25
DASHCAM_BYTES: Final = 10 << 30
"""The dashcam uses at most this share of the free disk space, and at most this number of bytes."""


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """Where a recorder keeps and sends its recordings.

    Args:
        spool_dir: folder of the spool; the recorder's own files are in ``record`` below it.
        state_dir: folder of the user for all recorders, for the locks of cameras.
        login: the server; None: recordings stay on this computer.
        login_note: why there is no server, as a sentence.
        before_s: how many seconds the dashcam keeps.
        dashcam_bytes: disk space of the dashcam. None: 10 GiB, or a quarter of the free space if that is less.
        spool_max_bytes: disk space of all recordings together. None: 90 % of what is free.
        save_s: longest wait in s at the end for a recording to be saved.
        page: address of the recorder's page, for the sentence that refuses a second recorder.
    """

    spool_dir: Path
    state_dir: Path
    login: ServerLogin | None = None
    login_note: str = ""
    before_s: float = 600.0
    dashcam_bytes: int | None = None
    spool_max_bytes: int | None = None
    save_s: float = 30.0
    page: str = ""
    streamer_options: dict[str, object] = field(default_factory=dict)
    """Further arguments of ``AsyncRHEEDStreamer``, for tests."""

    @property
    def record_dir(self) -> Path:
        """Folder of the recorder's own files."""
        return self.spool_dir / "record"

    def dashcam_limits(self) -> DashcamLimits:
        """The limits of a new dashcam. Without a setting its bytes depend on the free disk space now."""
        allowed = self.dashcam_bytes
        if allowed is None:
            allowed = min(DASHCAM_BYTES, int(DASHCAM_SHARE * free_bytes(self.spool_dir)))
        return DashcamLimits(seconds=self.before_s, disk_bytes=allowed)


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk on which ``folder`` is, or will be."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free
