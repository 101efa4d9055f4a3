"""Recordings whose frames lie in several places: OME-TIFF of several files, an HDF5 dataset for each frame."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import open_source, open_sources
from tests.sources.file_table import GREY
from tests.sources.source_files import read, tifffile, write_image

h5py = pytest.importorskip("h5py")

SIX = np.concatenate([GREY, 255 - GREY])


def write_ome(folder: Path, **options: Any) -> list[Path]:
    """Write SIX as two files of three pages, whose descriptions name the pages of both, as Micro-Manager does."""
    pages = "".join(
        f'<TiffData IFD="{k % 3}" FirstT="{k}" PlaneCount="1">'
        f'<UUID FileName="s_{k // 3}.ome.tif">urn:uuid:0000000{k // 3}-0000-0000-0000-000000000000</UUID></TiffData>'
        for k in range(6)
    )
    paths = [folder / f"s_{k}.ome.tif" for k in range(2)]
    for k, path in enumerate(paths):
        text = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:0000000{k}-0000-0000-0000-000000000000"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYZCT" Type="uint8" SizeX="32" SizeY="24" SizeZ="1" SizeC="1" SizeT="6">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{pages}</Pixels></Image></OME>'
        )
        part = SIX[3 * k : 3 * k + 3]
        tifffile.imwrite(path, part, photometric="minisblack", metadata=None, description=text, **options)
    return paths


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "lzw"}], ids=str)
def test_ome_tiff_of_several_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    """Each page is read from its own file, whichever file is opened; files given in a row are read once."""
    paths = write_ome(tmp_path, **options)
    for path in paths:
        np.testing.assert_array_equal(read(open_source(path)), SIX)
    np.testing.assert_array_equal(read(open_sources(paths)), SIX)
    assert "s_1.ome.tif is already contained in the files before it" in caplog.text
    with pytest.raises(ConfigError, match=r"s_0.ome.tif has 6 pages.*by their names, several in a row"):
        open_source(tmp_path)


def test_ome_tiff_without_its_second_file(tmp_path: Path) -> None:
    """The pages of a missing file are missing frames."""
    paths = write_ome(tmp_path)
    paths[1].unlink()
    source = open_source(paths[0], skip_damaged=True)
    np.testing.assert_array_equal(np.concatenate([one.frames for one in source.chunks(4)]), SIX[:3])
    assert sum(gap.frames or 0 for gap in source.gaps) == 3
    assert "another file, which is missing" in source.gaps[0].reason


def test_an_animation_is_not_a_frame(tmp_path: Path) -> None:
    """An APNG holds several pictures, of which decoders of images give the first alone."""
    image = pytest.importorskip("PIL.Image")
    image.fromarray(GREY[0]).save(tmp_path / "a.png", save_all=True, append_images=[image.fromarray(GREY[1])])
    with pytest.raises(ConfigError, match="several images"):
        open_source(tmp_path / "a.png")
    write_image(tmp_path / "b.png", GREY[0])
    np.testing.assert_array_equal(read(open_source(tmp_path / "b.png")), GREY[:1])


@pytest.mark.parametrize("name", ["frame_{}", "run/T={}.5/image", "{:05d}"])
def test_a_dataset_for_each_frame(tmp_path: Path, name: str) -> None:
    """Pictures whose paths differ in their numbers are frames, in the order in which people count."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for k in (10, 2, 0, 11, 1):
            file[name.format(k)] = SIX[k % 6] + k
        file["dark_of_another_camera"] = np.zeros((5, 5))
    expected = np.stack([SIX[k % 6] + k for k in (0, 1, 2, 10, 11)])
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.h5"), 2), expected)


def test_a_group_with_a_dataset_for_each_frame(tmp_path: Path) -> None:
    """A group is chosen by its name; times and a frame that was never written are found."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for k in range(4):
            file.create_dataset(f"camera/{k}", (24, 32), "u1", chunks=(24, 32))
            file[f"other/{k}"] = GREY[0]
            if k != 2:
                file[f"camera/{k}"][...] = SIX[k]
        file["camera/time"] = [0.0, 50.0, 100.0, 150.0]
        file["camera/time"].attrs["units"] = "ms"
    with pytest.raises(ConfigError, match="several could be meant"):
        open_source(tmp_path / "a.h5")
    source = open_source(tmp_path / "a.h5", dataset="camera", skip_damaged=True)
    (chunk,) = source.chunks(9)
    np.testing.assert_array_equal(chunk.frames, SIX[[0, 1, 3]])
    assert chunk.times_s is not None
    np.testing.assert_allclose(chunk.times_s, [0, 0.05, 0.15])
    assert [(gap.frame, gap.frames) for gap in source.gaps] == [(2, 1)]


def test_pictures_beside_others(tmp_path: Path) -> None:
    """Where it is not certain which pictures are the frames, none is left out or added by a guess."""
    for name, add in {
        "of the same size": lambda file: file.create_dataset("dark", data=GREY[0]),
        "a broken link": lambda file: file.__setitem__("k1", h5py.SoftLink("/gone")),
    }.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["k0"], file["k2"] = GREY[:2]
            add(file)
        with pytest.raises(ConfigError, match="several could be meant"):
            open_source(tmp_path / f"{name}.h5")


WRITER = """
import sys, h5py
file = h5py.File(sys.argv[1], "w", libver="latest")
data = file.create_dataset("data", (3, 24, 32), "u1", maxshape=(None, 24, 32), chunks=(1, 24, 32))
file.swmr_mode = True
data[...] = 7
data.flush()
print("written", flush=True)
sys.stdin.read()
"""


def test_a_file_that_is_being_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SWMR: the frames that a growing file has are read, and a warning states that later ones are not."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "a.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        with caplog.at_level(logging.WARNING, "atomstream"):
            frames = read(open_source(tmp_path / "a.h5"))
        writer.communicate("")
    assert frames.shape == (3, 24, 32)
    assert (frames == 7).all()
    assert caplog.text.count("is being written by another program") == 1
