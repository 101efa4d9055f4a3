from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.sources.packed import LAYOUTS

LOW_FIRST = {"10p": 10, "12p": 12, "14p": 14}
HIGH_FIRST = {"10msb": 10, "12msb": 12}


def bits_of(values: npt.NDArray[np.int64], bits: int, *, low_first: bool) -> npt.NDArray[np.uint8]:
    """Pack by arithmetic of one large integer: the definition of a bit stream, without any group."""
    number, count = 0, values.size * bits
    for k, value in enumerate(values.ravel().tolist()):
        number |= value << (k * bits if low_first else count - (k + 1) * bits)
    size = -(-count // 8)
    number <<= 0 if low_first else 8 * size - count
    return np.frombuffer(number.to_bytes(size, "little" if low_first else "big"), np.uint8)


@pytest.mark.parametrize("name", [*LOW_FIRST, *HIGH_FIRST])
@pytest.mark.parametrize("shape", [(2, 8), (3, 5), (1, 1), (5, 7)])
def test_bit_streams(name: str, shape: tuple[int, int]) -> None:
    """Mono10p, Mono12p, Mono14p and the big-endian bit streams are unpacked according to their standards."""
    bits = (LOW_FIRST | HIGH_FIRST)[name]
    frames = np.random.default_rng(3).integers(0, 1 << bits, (3, *shape))
    packed = np.stack([bits_of(frame, bits, low_first=name in LOW_FIRST) for frame in frames])
    assert packed.shape[1] == LAYOUTS[name].frame_bytes(shape[0] * shape[1])
    np.testing.assert_array_equal(LAYOUTS[name].frames(packed, *shape), frames)


@pytest.mark.parametrize(
    ("name", "stored", "pixels"),
    [
        # GigE Vision 2.0, 5.2: the two low halves share the middle byte, the first pixel in its low half.
        ("12packed", [0xAB, 0x3C, 0xDE], [0xABC, 0xDE3]),
        ("10packed", [0xAB, 0x21, 0xDE], [(0xAB << 2) | 1, (0xDE << 2) | 2]),
        # MIPI CSI-2: high bytes first, then the low bits, the first pixel in the lowest ones.
        ("10mipi", [1, 2, 3, 4, 0b11100100], [4, 9, 14, 19]),
        ("12mipi", [0xAB, 0xDE, 0x3C], [0xABC, 0xDE3]),
    ],
)
def test_shared_bytes(name: str, stored: list[int], pixels: list[int]) -> None:
    """Layouts in which pixels share a byte: examples written by hand from the standards."""
    block = np.array([stored], np.uint8)
    assert LAYOUTS[name].frames(block, 1, len(pixels))[0, 0].tolist() == pixels
    assert LAYOUTS[name].frame_bytes(len(pixels) + 1) == 2 * len(stored)
    assert LAYOUTS[name].frames(np.tile(block, 2), 1, len(pixels) + 1)[0, 0].tolist() == [*pixels, pixels[0]]
