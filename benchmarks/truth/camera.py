"""The camera: from light per pixel to the frames that a program receives."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from benchmarks.truth.growth import F64

Frames = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Camera:
    """How light becomes grey values.

    ``bits`` per pixel (above 8: uint16), ``gamma`` of the grey curve, ``inverted`` greys, ``electrons`` per pixel at
    full scale (sets the shot noise), ``read_noise`` and ``black`` as shares of full scale, ``clip`` the share of full
    scale where the sensor saturates, ``codec`` the quantisation step of the video compression in grey values (0: none).
    """

    bits: int = 8
    gamma: float = 1.0
    inverted: bool = False
    electrons: float = 4000.0
    read_noise: float = 0.004
    black: float = 0.02
    clip: float = 1.0
    codec: float = 0.0

    def digitise(self, light: F32, rng: np.random.Generator) -> Frames:
        """Return one frame (H, W) for ``light`` (H, W), where 1 is full scale."""
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        level = light + self.black
        level += noise * np.sqrt(
            np.maximum(light, 0.0) / self.electrons + self.read_noise**2, dtype=np.float32
        )
        level = np.clip(level, 0.0, self.clip)
        if self.gamma != 1.0:
            level = level ** np.float32(1 / self.gamma)
        if self.inverted:
            level = 1.0 - level
        full = 2**self.bits - 1
        return np.rint(level * full).astype(np.uint8 if self.bits <= 8 else np.uint16)


class Codec:
    """A video codec: differences from the last decoded picture, their 8x8 blocks quantised, small blocks left out.

    A block that changes by less than the threshold keeps its old content, so slow changes appear as late steps. Each
    50th frame is coded without the frame before it. Frames must come in order.
    """

    def __init__(self, step: float, interval: int = 50) -> None:
        self._step, self._interval = step, interval
        self._decoded: F64 | None = None
        self._number = 0

    def pass_through(self, frame: Frames) -> Frames:
        """Return the decoded picture of ``frame`` (H, W) uint8, H and W multiples of 8."""
        key = self._decoded is None or self._number % self._interval == 0
        self._number += 1
        before = np.full(frame.shape, 128.0) if key or self._decoded is None else self._decoded
        h, w = frame.shape
        blocks = (frame - before).reshape(h // 8, 8, w // 8, 8).transpose(0, 2, 1, 3)
        wave = fft.dctn(blocks, axes=(2, 3), norm="ortho")
        ramp = self._step * (1 + 0.12 * (np.arange(8)[:, None] + np.arange(8)))
        coded = np.sign(wave) * np.floor(np.abs(wave) / ramp + (0.5 if key else 0.33)) * ramp
        decoded = before + fft.idctn(coded, axes=(2, 3), norm="ortho").transpose(0, 2, 1, 3).reshape(h, w)
        self._decoded = np.clip(decoded, 0, 255)
        return np.rint(self._decoded).astype(np.uint8)


def through_h264(frames: Frames, quality: int, fps: int = 30) -> Frames:
    """Return frames (N, H, W) uint8 after a real H.264 coder; ``quality`` is its CRF (18 fine, 24 strong).

    Needs PyAV with libx264; without it the frames pass through :class:`Codec`.
    """
    try:
        import av

        video = av.open(stored := io.BytesIO(), "w", format="matroska")
        stream = video.add_stream("libx264", rate=fps, options={"crf": str(quality), "preset": "veryfast"})
    except (ImportError, ValueError):
        codec = Codec(float(max(1, quality - 8)))
        return np.stack([codec.pass_through(frame) for frame in frames])
    stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
    for frame in frames:
        video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")))
    video.mux(stream.encode(None))
    video.close()
    stored.seek(0)
    with av.open(stored) as coded:
        return np.stack([frame.to_ndarray(format="gray") for frame in coded.decode(video=0)])


def auto_exposure(
    brightness: F64, fps: float, target: float = 0.3, lag_s: float = 0.5, step: float = 0.05
) -> F64:
    """Return the exposure gains (N,) of a camera that follows the mean ``brightness`` (N,) of its pictures.

    The gain changes in steps of 5 %, with a lag of half a second, as many cameras do.
    """
    gain = np.empty(len(brightness))
    log = math.log(target / max(float(brightness[0]), 1e-6))
    held = log
    for i, seen in enumerate(brightness):
        gain[i] = math.exp(held)
        log += (math.log(target / max(float(seen), 1e-6)) - log) / (lag_s * fps)
        if abs(log - held) > step:
            held += math.copysign(step, log - held)
    return gain / gain[0]
