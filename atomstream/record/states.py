"""The states of a recorder, and which of its actions are possible in which state."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from atomstream.errors import AtomstreamError


class RecorderState(StrEnum):
    """What a recorder does. The camera runs, and the dashcam keeps its frames, in every state."""

    IDLE = "idle"
    """Nothing is recorded."""
    RECORDING = "recording"
    """New frames belong to the recording."""
    PAUSED = "paused"
    """There is a recording, and new frames do not belong to it."""
    FINISHING = "finishing"
    """The recording has its last frame, and is being saved. The next state is IDLE."""


class NotPossibleError(AtomstreamError):
    """The action is not possible in this state; the message names what to do first."""


_POSSIBLE: Final[dict[str, tuple[RecorderState, ...]]] = {
    "open another source": (RecorderState.IDLE,),
    "record": (RecorderState.IDLE,),
    "pause": (RecorderState.RECORDING,),
    "go on": (RecorderState.PAUSED,),
    "stop": (RecorderState.RECORDING, RecorderState.PAUSED),
}

_REASONS: Final = {
    RecorderState.IDLE: "Nothing is being recorded.",
    RecorderState.RECORDING: "A recording runs: stop it first.",
    RecorderState.PAUSED: "A recording is paused: go on with it, or stop it first.",
    RecorderState.FINISHING: "The last recording is being saved: try again in a moment.",
}


def check_possible(action: str, state: RecorderState) -> None:
    """Raise NotPossibleError if ``action`` is not possible in ``state``."""
    if state not in _POSSIBLE[action]:
        raise NotPossibleError(_REASONS[state])
