"""The choice of zstd parameters by the picture."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard

from atomstream.compressors import TOLERANCE, FrameCompressor


def noisy(rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.normal(40, 6, (480, 640)), 0, 255).astype(np.uint8)


def repeating(rng: np.random.Generator) -> np.ndarray:
    return np.tile(rng.integers(0, 256, (8, 640), dtype=np.uint8), (60, 1))


@pytest.mark.parametrize("level", [-5, 1, 3])
@pytest.mark.parametrize("picture", [noisy, repeating])
def test_every_frame_can_be_read_and_checked(level: int, picture: object) -> None:
    """Each frame is one zstd frame that declares its size and carries its checksum."""
    frame = picture(np.random.default_rng(0))  # type: ignore[operator]
    body = next(FrameCompressor(level).compress([frame.data.cast("B")]))
    parameters = zstandard.get_frame_parameters(body)
    assert parameters.has_checksum
    assert parameters.content_size == frame.nbytes
    assert zstandard.ZstdDecompressor().decompress(body) == frame.tobytes()


@pytest.mark.parametrize("picture", [noisy, repeating])
def test_speed_costs_no_size(picture: object) -> None:
    """At level 1 a chunk is at most one per cent larger than zstd's own level 1 makes it."""
    frame = picture(np.random.default_rng(1))  # type: ignore[operator]
    view = frame.data.cast("B")
    ours = len(next(FrameCompressor(1).compress([view])))
    plain = len(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(view))
    assert ours <= plain * (1 + TOLERANCE)


def test_the_checksum_is_the_contents_own() -> None:
    """Whatever parameters were used, equal frames end with equal checksums."""
    view = noisy(np.random.default_rng(2)).data.cast("B")
    ends = {next(FrameCompressor(level).compress([view]))[-4:] for level in (-3, 1, 5)}
    assert ends == {FrameCompressor().checksum(view)}


def test_the_choice_follows_the_picture() -> None:
    """A compressor that was used on noise still makes a repeating picture as small as zstd's own level 1 does."""
    rng = np.random.default_rng(3)
    noise, pattern = noisy(rng).data.cast("B"), repeating(rng).data.cast("B")
    compressor = FrameCompressor(1)
    list(compressor.compress([noise, noise]))
    plain = len(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(pattern))
    assert max(map(len, compressor.compress([pattern] * 2))) <= plain * (1 + TOLERANCE)


def test_parts_of_a_picture_have_their_own_code() -> None:
    """A picture whose brightness differs from part to part becomes smaller than at zstd's own level 1."""
    rng = np.random.default_rng(4)
    mean = np.where(np.arange(480)[:, None] // 160 % 2, 4, 60)
    frame = np.clip(rng.normal(mean, np.sqrt(mean), (480, 640)), 0, 255).astype(np.uint8)
    view = frame.data.cast("B")
    plain = len(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(view))
    assert len(next(FrameCompressor(1).compress([view]))) < 0.95 * plain
