"""The choice of zstd parameters depends on the picture."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard

from atomstream.shard import zstd as zstd_module
from atomstream.shard.zstd import TOLERANCE, FrameCompressor, literals_only


def noisy(rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.normal(40, 6, (480, 640)), 0, 255).astype(np.uint8)


def repeating(rng: np.random.Generator) -> np.ndarray:
    return np.tile(rng.integers(0, 256, (8, 640), dtype=np.uint8), (60, 1))


@pytest.mark.parametrize("level", [-5, 1, 3])
@pytest.mark.parametrize("picture", [noisy, repeating])
def test_every_frame_is_readable_and_has_a_checksum(level: int, picture: object) -> None:
    """Each frame is one zstd frame with content size and checksum."""
    frame = picture(np.random.default_rng(0))  # type: ignore[operator]
    body = next(FrameCompressor(level).compress([frame.data.cast("B")]))
    parameters = zstandard.get_frame_parameters(body)
    assert parameters.has_checksum
    assert parameters.content_size == frame.nbytes
    assert zstandard.ZstdDecompressor().decompress(body) == frame.tobytes()


@pytest.mark.parametrize("picture", [noisy, repeating])
def test_fast_parameters_do_not_increase_the_size(picture: object) -> None:
    """At level 1 a frame is at most 1 % larger than with the standard level 1 of zstd."""
    frame = picture(np.random.default_rng(1))  # type: ignore[operator]
    view = frame.data.cast("B")
    ours = len(next(FrameCompressor(1).compress([view])))
    plain = len(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(view))
    assert ours <= plain * (1 + TOLERANCE)


def test_the_checksum_depends_on_the_content_only() -> None:
    """Equal frames end with equal checksums for all parameters."""
    view = noisy(np.random.default_rng(2)).data.cast("B")
    ends = {next(FrameCompressor(level).compress([view]))[-4:] for level in (-3, 1, 5)}
    assert ends == {FrameCompressor().checksum(view)}


def test_the_choice_changes_with_the_picture() -> None:
    """A compressor that was used for noise compresses a repeating picture as well as the standard level 1."""
    rng = np.random.default_rng(3)
    noise, pattern = noisy(rng).data.cast("B"), repeating(rng).data.cast("B")
    compressor = FrameCompressor(1)
    list(compressor.compress([noise, noise]))
    plain = len(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(pattern))
    assert max(map(len, compressor.compress([pattern] * 2))) <= plain * (1 + TOLERANCE)


def uneven(rng: np.random.Generator) -> np.ndarray:
    mean = np.where(np.arange(480)[:, None] // 160 % 2, 4, 60)
    return np.clip(rng.normal(mean, np.sqrt(mean), (480, 640)), 0, 255).astype(np.uint8)


def test_parts_of_a_picture_have_their_own_code_tables() -> None:
    """A picture with parts of different brightness becomes smaller than with the standard level 1."""
    view = uneven(np.random.default_rng(4)).data.cast("B")
    plain = len(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(view))
    assert len(next(FrameCompressor(1).compress([view]))) < 0.95 * plain


def test_noise_is_compressed_without_a_search() -> None:
    """A noisy picture is compressed as literals only, and is not larger than with matches."""
    view = uneven(np.random.default_rng(5)).data.cast("B")
    body = next(FrameCompressor(1).compress([view]))
    assert body == literals_only()(view)
    assert len(body) <= len(zstd_module._fast(6)(view)) * 1.001


def _absent() -> None:
    raise ImportError("no zstd here")


class _Refusing:
    """The standard library's module with a zstd that does not support the parameter."""

    class ZstdError(Exception):
        pass

    def __init__(self, error: type[Exception] = ValueError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> object:
        raise self._error(name)


@pytest.mark.parametrize("module", [_absent, _Refusing, lambda: _Refusing(_Refusing.ZstdError)])
def test_frames_are_equal_if_the_search_cannot_be_disabled(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the zstd module, or if it refuses the parameter, frames are still readable, with equal checksums."""
    view = repeating(np.random.default_rng(6)).data.cast("B")
    usual = literals_only()(view)
    monkeypatch.setattr(zstd_module, "_standard_module", module)
    body = FrameCompressor(1).checksum(view), literals_only()(view)
    assert zstandard.ZstdDecompressor().decompress(body[1]) == view
    assert body[0] == body[1][-4:] == usual[-4:]
    assert body[1] != usual
