from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import ArraySource, FrameSource, GrowthSpec, Simulator, open_source

av = pytest.importorskip("av")
tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")

FRAMES = Simulator(GrowthSpec(height=48, width=64, seed=9)).frames(0, 11)
DEEP = (FRAMES.astype(np.uint16) << 4) + 3
DATA = Path(__file__).parents[1] / "data"


def read(source: FrameSource, chunk_size: int = 4) -> npt.NDArray[Any]:
    """All frames of a source, with the promises checked that hold for every source."""
    chunks = list(source.chunks(chunk_size))
    assert isinstance(source, FrameSource)
    assert all(len(chunk.frames) == chunk_size for chunk in chunks[:-1])
    assert 0 < len(chunks[-1].frames) <= chunk_size
    for chunk in chunks:
        assert chunk.frames.shape[1:] == source.frame_shape
        assert chunk.frames.dtype == source.dtype
        assert chunk.frames.flags.c_contiguous
        assert type(chunk.frames) is np.ndarray
    frames = np.concatenate([chunk.frames for chunk in chunks])
    assert source.n_frames in (None, len(frames))
    return frames


def write_video(path: Path, frames: npt.NDArray[Any], pts: list[int], **options: Any) -> None:
    """Write grey frames with these presentation stamps (milliseconds)."""
    options = {"codec": "ffv1", "pix_fmt": "gray", "source": "gray"} | options
    with av.open(str(path), "w") as container:
        stream = container.add_stream(options["codec"], rate=options.get("rate", 1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = options["pix_fmt"]
        for image, stamp in zip(frames, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format=options["source"])
            frame.pts = stamp
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_image(path: Path, image: npt.NDArray[Any], source: str = "gray", codec: str = "png") -> None:
    """Write one image by way of its codec's packet, which is the file."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = image.shape[:2]
    context.pix_fmt = source
    context.time_base = Fraction(1)
    packets = context.encode(av.VideoFrame.from_ndarray(image, format=source)) + context.encode(None)
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


@pytest.mark.parametrize("frames", [FRAMES, DEEP, DEEP.astype(">u2"), np.asfortranarray(FRAMES), FRAMES[0]])
def test_npy_is_read_whatever_its_layout(tmp_path: Path, frames: npt.NDArray[Any]) -> None:
    """.npy of 8 or 16 bits, either byte order, any memory order, comes pixel for pixel."""
    np.save(tmp_path / "a.npy", frames)
    expected = frames if frames.ndim == 3 else frames[None]
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.npy")), expected)


def test_a_source_can_be_read_again(tmp_path: Path) -> None:
    """Each call of chunks() begins at the first frame; the chunk size changes nothing."""
    np.save(tmp_path / "a.npy", FRAMES)
    source = open_source(str(tmp_path / "a.npy"))
    for chunk_size in (1, 5, 11, 100):
        np.testing.assert_array_equal(read(source, chunk_size), FRAMES)
    with pytest.raises(ConfigError, match="chunk_size is 0"):
        next(source.chunks(0))


def test_npz_takes_the_named_or_the_only_array(tmp_path: Path) -> None:
    """.npz: the dataset asked for, else `frames`, else the only array; or an error with the names."""
    np.savez(tmp_path / "one.npz", any_name=FRAMES)
    np.savez_compressed(tmp_path / "two.npz", frames=FRAMES, deep=DEEP)
    np.savez(tmp_path / "vague.npz", a=FRAMES, b=DEEP)
    np.testing.assert_array_equal(read(open_source(tmp_path / "one.npz")), FRAMES)
    np.testing.assert_array_equal(read(open_source(tmp_path / "two.npz")), FRAMES)
    np.testing.assert_array_equal(read(open_source(tmp_path / "two.npz", dataset="deep")), DEEP)
    with pytest.raises(ConfigError, match="no array 'frames'; choose a dataset of a, b"):
        open_source(tmp_path / "vague.npz")


def test_real_frames_are_read() -> None:
    """The real Sb frames come with their shape, dtype and brightness."""
    source = open_source(DATA / "sb_deposition_6x259x346.npz")
    assert (source.n_frames, source.frame_shape, source.dtype) == (6, (259, 346), np.uint8)
    frames = read(source)
    assert frames.max() == 74
    assert len({frame.tobytes() for frame in frames}) == 6


def test_real_frames_survive_each_lossless_format(tmp_path: Path) -> None:
    """The real frames written as TIFF, PNG, FFV1 and Zarr read back equal."""
    frames = read(open_source(DATA / "sb_deposition_6x259x346.npz"))
    tifffile.imwrite(tmp_path / "a.tif", frames, compression="zlib")
    write_video(tmp_path / "a.mkv", frames, list(range(0, 600, 100)))
    zarr.create_array(str(tmp_path / "a.zarr"), data=frames, chunks=(1, 259, 346))
    (tmp_path / "pngs").mkdir()
    for k, frame in enumerate(frames):
        write_image(tmp_path / "pngs" / f"f{k}.png", frame)
    for name in ("a.tif", "a.mkv", "a.zarr", "pngs"):
        np.testing.assert_array_equal(read(open_source(tmp_path / name)), frames)


@pytest.mark.parametrize("frames", [FRAMES, DEEP, DEEP[:1]])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True},
        {"bigtiff": True, "byteorder": ">"},
        {"ome": True},
        {"compression": "zlib", "rowsperstrip": 7},
    ],
)
def test_tiff_stacks(tmp_path: Path, frames: npt.NDArray[Any], options: dict[str, Any]) -> None:
    """TIFF stacks of 8 and 16 bits, mapped or compressed, plain, ImageJ, OME or BigTIFF, come equal."""
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", **options)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.tif")), frames)


def test_tiff_written_page_by_page(tmp_path: Path) -> None:
    """Pages appended one at a time, as cameras do, form one stack."""
    with tifffile.TiffWriter(tmp_path / "a.tiff") as writer:
        for frame in FRAMES:
            writer.write(frame, contiguous=False, photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "b.tiff") as writer:
        writer.write(FRAMES[:6], photometric="minisblack", contiguous=False)
        writer.write(FRAMES[6:], photometric="minisblack", contiguous=False)
    for name in ("a.tiff", "b.tiff"):
        np.testing.assert_array_equal(read(open_source(tmp_path / name)), FRAMES)


def test_tiff_that_is_no_stack(tmp_path: Path) -> None:
    """Colour, pages of different sizes, and torn files are each told in a sentence."""
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((2, 8, 8, 3), np.uint8), photometric="rgb")
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        writer.write(FRAMES[0])
        writer.write(FRAMES[0, :20])
    (tmp_path / "torn.tif").write_bytes(b"II*\0")
    for name, said in (
        ("rgb", "colour frames"),
        ("mixed", "different sizes"),
        ("torn", "can't be read as TIFF"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_source(tmp_path / f"{name}.tif")


def test_a_torn_page_is_named(tmp_path: Path) -> None:
    """A page whose bytes are damaged fails when it is read, with its number; those before come out."""
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset = tif.pages[6].dataoffsets[0]
    with open(tmp_path / "a.tif", "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 40)
    chunks = open_source(tmp_path / "a.tif").chunks(3)
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[:3])
    next(chunks)
    with pytest.raises(ConfigError, match=r"a\.tif: page 6 can't be read"):
        next(chunks)


@pytest.mark.parametrize(("suffix", "codec"), [(".png", "png"), (".bmp", "bmp")])
def test_images_come_in_natural_order(tmp_path: Path, suffix: str, codec: str) -> None:
    """frame2 comes before frame10; other files in the folder are left alone."""
    for k, frame in enumerate(FRAMES):
        write_image(tmp_path / f"frame%{k}{suffix}", frame, codec=codec)
    (tmp_path / "notes.txt").write_text("Ga open")
    (tmp_path / f"._frame3{suffix}").write_bytes(b"mac")
    np.testing.assert_array_equal(read(open_source(tmp_path)), FRAMES)


def test_images_of_sixteen_bits(tmp_path: Path) -> None:
    """16-bit PNG and TIFF images keep all their bits."""
    for kind in ("png", "tif"):
        (tmp_path / kind).mkdir()
    for k, frame in enumerate(DEEP):
        write_image(tmp_path / "png" / f"{k}.png", frame, source="gray16be")
        tifffile.imwrite(tmp_path / "tif" / f"{k}.tif", frame)
    for kind in ("png", "tif"):
        np.testing.assert_array_equal(read(open_source(tmp_path / kind)), DEEP)


def test_grey_saved_as_rgb_is_grey(tmp_path: Path) -> None:
    """A PNG whose three channels agree is grey; one whose channels differ is a colour picture."""
    rgb = np.repeat(FRAMES[0][..., None], 3, axis=2)
    write_image(tmp_path / "a.png", rgb, source="rgb24")
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.png")), FRAMES[:1])
    rgb[20:, :, 0] = 200
    write_image(tmp_path / "b.png", rgb, source="rgb24")
    write_image(tmp_path / "c.png", np.repeat(DEEP[0][..., None], 3, axis=2), source="rgb48be")
    for name in ("b.png", "c.png"):
        with pytest.raises(ConfigError, match=f"{name} is a colour picture"):
            open_source(tmp_path / name)


def test_folders_that_are_no_sequence(tmp_path: Path) -> None:
    """No images, several kinds, another size on the way, a stack within, a torn file: each is told."""
    for name in ("empty", "kinds", "sizes", "stack", "torn"):
        (tmp_path / name).mkdir()
    write_image(tmp_path / "kinds" / "a.png", FRAMES[0])
    write_image(tmp_path / "kinds" / "a.bmp", FRAMES[0], codec="bmp")
    write_image(tmp_path / "sizes" / "a1.png", FRAMES[0])
    write_image(tmp_path / "sizes" / "a2.png", np.ascontiguousarray(FRAMES[0, :40]))
    tifffile.imwrite(tmp_path / "stack" / "a.tif", FRAMES)
    (tmp_path / "torn" / "a.png").write_bytes(b"\x89PNG\r\n")
    said = {
        "empty": "is empty",
        "kinds": "1 .bmp, 1 .png",
        "stack": "11 pages",
        "torn": "a.png can't be read",
    }
    for name, sentence in said.items():
        with pytest.raises(ConfigError, match=sentence):
            open_source(tmp_path / name)
    with pytest.raises(ConfigError, match=r"a2\.png is \(40, 64\)"):
        read(open_source(tmp_path / "sizes"))


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_video_is_exact(tmp_path: Path, suffix: str) -> None:
    """Lossless grey video comes pixel for pixel, with its rate."""
    write_video(tmp_path / f"a{suffix}", FRAMES, list(range(11)), rate=25)
    source = open_source(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read(source), FRAMES)
    assert source.fps == pytest.approx(25.0, rel=0.02)


def test_video_times_are_the_files_own(tmp_path: Path) -> None:
    """Presentation stamps come as they are, gaps included, from the first frame's on."""
    stamps = [40, 73, 106, 214, 247, 280, 313, 346, 454, 487, 520]
    write_video(tmp_path / "a.mkv", FRAMES, stamps)
    times = [chunk.times_s for chunk in open_source(tmp_path / "a.mkv").chunks(4)]
    expected = (np.array(stamps) - 40) / 1000
    np.testing.assert_allclose(np.concatenate([t for t in times if t is not None]), expected, atol=1e-9)


def test_deep_video_keeps_its_bits(tmp_path: Path) -> None:
    """A 16-bit grey video comes as uint16."""
    write_video(tmp_path / "a.mkv", DEEP, list(range(11)), pix_fmt="gray16le", source="gray16le")
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.mkv")), DEEP)


def test_compressed_colour_video_becomes_its_luma(tmp_path: Path) -> None:
    """H.264 frames come as grey over the full range, near the originals."""
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV has no H.264 encoder")
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (6, 48, 64))
    write_video(
        tmp_path / "a.mp4", np.ascontiguousarray(smooth), list(range(6)), codec="libx264", pix_fmt="yuv420p"
    )
    frames = read(open_source(tmp_path / "a.mp4"))
    assert np.abs(frames.astype(int) - smooth).max() <= 8


def test_what_is_no_video(tmp_path: Path) -> None:
    """Garbage, an empty file, sound without pictures, a video without frames: each is told in a sentence."""
    (tmp_path / "garbage.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "empty.avi").write_bytes(b"")
    write_sound(tmp_path / "sound.avi")
    (tmp_path / "frameless.y4m").write_bytes(b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 Cmono\n")
    said = {"garbage.mp4": "can't be decoded", "empty.avi": "can't be decoded", "sound.avi": "no video"}
    for name, sentence in (said | {"frameless.y4m": "is empty: its video has no frames"}).items():
        with pytest.raises(ConfigError, match=f"{name}.*{sentence}"):
            open_source(tmp_path / name)


def cut_video(path: Path, size: float) -> None:
    """Write an uncompressed AVI and cut it off after ``size`` frames of its 11."""
    write_video(path, FRAMES, list(range(11)), codec="rawvideo", rate=25)
    content = path.read_bytes()
    packet = FRAMES[0].size + 8
    path.write_bytes(content[: content.index(b"movi") + 4 + int(size * packet)])


def test_a_video_cut_off_is_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that ends between two frames gives what it has, and a warning says how much is missing."""
    cut_video(tmp_path / "a.avi", 5)
    frames = np.concatenate([chunk.frames for chunk in open_source(tmp_path / "a.avi").chunks(4)])
    np.testing.assert_array_equal(frames, FRAMES[:5])
    assert "ended after 5 of the 11 frames" in caplog.text


def test_a_torn_video_gives_the_frames_before_the_damage(tmp_path: Path) -> None:
    """A file torn within a frame gives all whole frames first, and then a clear error."""
    cut_video(tmp_path / "a.avi", 5.5)
    chunks = open_source(tmp_path / "a.avi").chunks(4)
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[:4])
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[4:5])
    with pytest.raises(ConfigError, match="can't be decoded"):
        next(chunks)


def write_sound(path: Path) -> None:
    """Write a tenth of a second of silence as WAV data under a video's name."""
    samples = bytes(1600)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + 1600,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        8000,
        16000,
        2,
        16,
        b"data",
        1600,
    )
    path.write_bytes(head + samples)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_arrays_and_groups(tmp_path: Path, zarr_format: Any) -> None:
    """A Zarr array, or `frames` or another array of a group, version 2 or 3, with its fps."""
    zarr.create_array(str(tmp_path / "a.zarr"), data=DEEP, chunks=(3, 48, 64), zarr_format=zarr_format)
    group = zarr.create_group(str(tmp_path / "g"), zarr_format=zarr_format, attributes={"fps": 120.0})
    group.create_array("frames", data=FRAMES, chunks=(4, 48, 64))
    group.create_array("other", data=DEEP, chunks=(4, 48, 64))
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.zarr")), DEEP)
    source = open_source(tmp_path / "g")
    np.testing.assert_array_equal(read(source), FRAMES)
    assert source.fps == 120.0
    np.testing.assert_array_equal(read(open_source(tmp_path / "g", dataset="other")), DEEP)


def test_zarr_times_tell_holes_from_black(tmp_path: Path) -> None:
    """A frame whose time is NaN was never taken and is left out; the others keep their times."""
    times = np.arange(11) / 50.0 + 3.0
    times[[0, 5, 6]] = np.nan
    group = zarr.create_group(str(tmp_path / "frames.zarr"))
    group.create_array("frames", data=FRAMES, chunks=(4, 48, 64))
    group.create_array("time", data=times)
    source = open_source(tmp_path / "frames.zarr")
    taken = [1, 2, 3, 4, 7, 8, 9, 10]
    np.testing.assert_array_equal(read(source, 3), FRAMES[taken])
    told = np.concatenate([chunk.times_s for chunk in source.chunks(3) if chunk.times_s is not None])
    np.testing.assert_allclose(told, (np.array(taken) - 1) / 50)


def test_zarr_that_holds_no_frames(tmp_path: Path) -> None:
    """A group without the array says which there are; damaged metadata is told."""
    group = zarr.create_group(str(tmp_path / "g.zarr"))
    group.create_array("film", data=FRAMES)
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    zarr.create_array(str(tmp_path / "a.zarr"), data=FRAMES)
    with pytest.raises(ConfigError, match="choose a dataset of film"):
        open_source(tmp_path / "g.zarr")
    with pytest.raises(ConfigError, match="can't be read as Zarr"):
        open_source(tmp_path / "bad.zarr")
    with pytest.raises(ConfigError, match="single array"):
        open_source(tmp_path / "a.zarr", dataset="frames")


def test_array_source_checks_its_times() -> None:
    """Times must be one a frame, and at least one of them known."""
    with pytest.raises(ConfigError, match=r"11 frames, but times of the shape \(3,\)"):
        ArraySource(FRAMES, times_s=[0.0, 1.0, 2.0])
    with pytest.raises(ConfigError, match="no frame has a time"):
        ArraySource(FRAMES, times_s=np.full(11, np.nan))
