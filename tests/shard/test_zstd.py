"""The choice of zstd parameters by the picture."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard

from atomstream.shard import zstd as compressors
from atomstream.shard.zstd import TOLERANCE, FrameCompressor, literals_only


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


def uneven(rng: np.random.Generator) -> np.ndarray:
    mean = np.where(np.arange(480)[:, None] // 160 % 2, 4, 60)
    return np.clip(rng.normal(mean, np.sqrt(mean), (480, 640)), 0, 255).astype(np.uint8)


def test_parts_of_a_picture_have_their_own_code() -> None:
    """A picture whose brightness differs from part to part becomes smaller than at zstd's own level 1."""
    view = uneven(np.random.default_rng(4)).data.cast("B")
    plain = len(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(view))
    assert len(next(FrameCompressor(1).compress([view]))) < 0.95 * plain


def test_nothing_is_searched_for_in_noise() -> None:
    """A noisy picture is one of literals alone, and no larger for it than with matches."""
    view = uneven(np.random.default_rng(5)).data.cast("B")
    body = next(FrameCompressor(1).compress([view]))
    assert body == literals_only()(view)
    assert len(body) <= len(compressors._fast(6)(view)) * 1.001


def _absent() -> None:
    raise ImportError("no zstd here")


class _Refusing:
    """The standard library's module over a zstd that does not know the parameter."""

    class ZstdError(Exception):
        pass

    def __init__(self, error: type[Exception] = ValueError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> object:
        raise self._error(name)


@pytest.mark.parametrize("module", [_absent, _Refusing, lambda: _Refusing(_Refusing.ZstdError)])
def test_where_a_search_cannot_be_left_out_frames_are_the_same(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python without zstd, or a zstd that refuses the parameter, makes frames as readable and with equal ends."""
    view = repeating(np.random.default_rng(6)).data.cast("B")
    usual = literals_only()(view)
    monkeypatch.setattr(compressors, "_standard_module", module)
    body = FrameCompressor(1).checksum(view), literals_only()(view)
    assert zstandard.ZstdDecompressor().decompress(body[1]) == view
    assert body[0] == body[1][-4:] == usual[-4:]
    assert body[1] != usual
