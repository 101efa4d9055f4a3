"""Emulators of cameras that really deliver frames, one for each adapter. A missing one is skipped with the reason."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream.cameras import Camera, CameraSettings, Region, open_camera

DEBIAN_GI = Path("/usr/lib/python3/dist-packages/gi")
"""PyGObject of Debian's python3, which a virtual environment does not see."""


@dataclass
class Emulator:
    """A camera that is there: its name, settings that it accepts, and those that it must refuse."""

    name: str
    settings: CameraSettings = field(default_factory=CameraSettings)
    refused: list[CameraSettings] = field(default_factory=list)
    absent: str = ""
    """A name of the same kind that opens nothing."""
    listed: bool = True
    """Whether discovery finds it."""
    deep: bool = False
    """Whether its frames are uint16."""
    prepare: Callable[[], None] = lambda: None
    """Called after the camera was opened, for those that only then deliver frames."""

    def camera(self) -> Camera:
        """A new camera object."""
        return open_camera(self.name)


def _package(name: str) -> Any:
    level = logging.getLogger().level
    try:
        return pytest.importorskip(name, reason=f"the package {name} is not installed")
    finally:
        logging.getLogger().setLevel(level)  # pymmcore-plus sets it to DEBUG


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@contextmanager
def simulated() -> Iterator[Emulator]:
    """Our own simulated growth."""
    yield Emulator(
        "sim:64x48",
        CameraSettings(fps=100.0, exposure_ms=4.0, gain=1.5, roi=Region(4, 2, 40, 30)),
        [CameraSettings(roi=Region(40, 0, 40, 30)), CameraSettings(pixel_format="Mono8")],
        absent="sim:large",
    )


@contextmanager
def basler() -> Iterator[Emulator]:
    """Pylon's camera emulator, inside pypylon."""
    _package("pypylon.pylon")
    with _environment(PYLON_CAMEMU="2"):
        yield Emulator(
            "basler:0815-0001",
            CameraSettings(
                fps=100.0, exposure_ms=1.0, gain=0.5, roi=Region(8, 4, 64, 48), pixel_format="Mono16"
            ),
            [CameraSettings(roi=Region(0, 0, 99999, 8)), CameraSettings(pixel_format="Mono7")],
            absent="basler:12345678",
            deep=True,
        )


@contextmanager
def genicam() -> Iterator[Emulator]:
    """The GenTL producer of the genicam wheel, viky.cti, through harvesters."""
    _package("harvesters.core")
    folder = Path(_package("genicam").__file__).parent
    if not (folder / "viky.cti").exists():
        pytest.skip("this genicam wheel has no viky.cti")
    with _environment(GENICAM_GENTL64_PATH=str(folder)):
        yield Emulator(
            "genicam:1",
            CameraSettings(fps=60.0),
            [CameraSettings(exposure_ms=3.0)],
            absent="genicam:nobody",
        )


@contextmanager
def micromanager() -> Iterator[Emulator]:
    """Micro-Manager's demo camera, with the adapters of mm-test-adapters."""
    _package("pymmcore_plus")
    adapters = _package("mm_test_adapters").device_adapter_path()
    with _environment(MICROMANAGER_PATH=str(adapters)):
        yield Emulator(
            "micromanager:",
            CameraSettings(exposure_ms=5.0, gain=2.0, roi=Region(8, 4, 64, 48), pixel_format="16bit"),
            [CameraSettings(fps=10.0), CameraSettings(pixel_format="3bit")],
            absent="micromanager:nowhere.cfg",
            deep=True,
        )


class Ioc:
    """An EPICS server with one NTNDArray, which posts images with a counter until it is stopped."""

    def __init__(self, shape: tuple[int, int], fps: float) -> None:
        from p4p.nt import NTNDArray
        from p4p.server.thread import SharedPV

        self._type = NTNDArray()
        self._fps = fps
        self.frames = np.random.default_rng(5).integers(0, 4096, (16, *shape), np.uint16)
        self.pv = SharedPV(initial=self.value(0))
        self.settings: dict[str, str] = {}
        self._server: Any = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ioc", daemon=True)

    def value(self, number: int) -> Any:
        """Image ``number`` as areaDetector sends it."""
        value = self._type.wrap(self.frames[number % len(self.frames)])
        value.uniqueId = number
        now = time.time()
        value.dataTimeStamp.secondsPastEpoch, value.dataTimeStamp.nanoseconds = int(now), int(now % 1 * 1e9)
        return value

    def listen(self) -> None:
        """Answer requests, at the same port as before."""
        from p4p.server import Server

        if self.settings:
            self._server = Server(providers=[{"RHEED:Image": self.pv}], conf=self.settings, useenv=False)
        else:
            self._server = Server(providers=[{"RHEED:Image": self.pv}], isolate=True)
            self.settings = self._server.conf()

    def unplug(self) -> None:
        """Answer nothing any more."""
        self._server.stop()

    def _run(self) -> None:
        number, begin = 0, time.monotonic()
        while not self._stop.wait(max(0.0, begin + number / self._fps - time.monotonic())):
            number += 1
            self.pv.post(self.value(number))

    def __enter__(self) -> Ioc:
        self.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.unplug()


@contextmanager
def ioc(shape: tuple[int, int] = (24, 32), fps: float = 100.0) -> Iterator[Ioc]:
    """An :class:`Ioc`, and the environment in which a client finds it."""
    _package("p4p")
    with Ioc(shape, fps) as served:
        names = ("ADDR_LIST", "AUTO_ADDR_LIST", "BROADCAST_PORT", "SERVER_PORT")
        with _environment(**{f"EPICS_PVA_{name}": served.settings[f"EPICS_PVA_{name}"] for name in names}):
            from p4p.client.thread import Context

            with Context("pva") as context:  # registers p4p's own thread, which never ends, with Python
                context.get("RHEED:Image")
            yield served


@contextmanager
def epics() -> Iterator[Emulator]:
    """A PVAccess server that sends NTNDArray, as areaDetector's PVA plugin does."""
    with ioc():
        yield Emulator(
            "epics:RHEED:Image",
            deep=True,
            refused=[CameraSettings(gain=1.0)],
            absent="epics:",
            listed=False,
        )


@contextmanager
def aravis() -> Iterator[Emulator]:
    """The fake camera inside the Aravis library; its 16-bit counter begins shortly before the wrap."""
    library = aravis_library()
    library.enable_interface("Fake")
    try:
        yield Emulator(
            "aravis:Fake_1",
            CameraSettings(
                fps=200.0, exposure_ms=2.0, gain=1.0, roi=Region(0, 0, 64, 48), pixel_format="Mono16"
            ),
            [CameraSettings(pixel_format="Mono7")],
            absent="aravis:Fake_7",
            deep=True,
        )
    finally:
        library.disable_interface("Fake")


def aravis_library() -> Any:
    """Aravis through PyGObject, of the virtual environment or of Debian; skips the test without them."""
    if importlib.util.find_spec("gi") is None and DEBIAN_GI.is_dir():
        spec = importlib.util.spec_from_file_location(
            "gi", DEBIAN_GI / "__init__.py", submodule_search_locations=[str(DEBIAN_GI)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules["gi"] = module = importlib.util.module_from_spec(spec)
        try:
            with warnings.catch_warnings(action="ignore"):
                spec.loader.exec_module(module)
        except ImportError:  # built for another version of Python
            del sys.modules["gi"]
    gi = _package("gi")
    try:
        gi.require_version("Aravis", "0.8")
    except ValueError:
        pytest.skip("Aravis 0.8 (gir1.2-aravis-0.8) is not installed")
    with warnings.catch_warnings(action="ignore"):  # PyGObject's importer is of an older protocol
        return importlib.import_module("gi.repository.Aravis")


@contextmanager
def gige_camera(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Aravis' fake GigE Vision camera: a process that sends packets on the loopback address, at the standard's port."""
    program = shutil.which("arv-fake-gv-camera-0.8")
    if program is None:
        pytest.skip("arv-fake-gv-camera-0.8 (aravis-tools) is not installed")
    process = subprocess.Popen(
        [program, "-i", "127.0.0.1", "-s", "GV01", *options], stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def opencv() -> Iterator[Emulator]:
    """A film as OpenCV's capture device."""
    import tempfile

    cv2 = _package("cv2")
    with tempfile.TemporaryDirectory() as folder:
        film = str(Path(folder) / "film.avi")
        writer = cv2.VideoWriter(film, cv2.VideoWriter_fourcc(*"FFV1"), 50.0, (64, 48), False)
        for frame in np.random.default_rng(6).integers(0, 256, (200, 48, 64), np.uint8):
            writer.write(frame)
        writer.release()
        yield Emulator(
            f"opencv:{film}",
            refused=[CameraSettings(roi=Region(0, 0, 8, 8))],
            absent="opencv:/nowhere/film.avi",
            listed=False,
        )


@contextmanager
def screen() -> Iterator[Emulator]:
    """A screen: the one of this session, or a virtual one (Xvfb)."""
    _package("mss")
    with ExitStack() as stack:
        if sys.platform == "linux" and not os.environ.get("DISPLAY"):
            stack.enter_context(_virtual_screen())
        yield Emulator(
            "screen:10,20,64,48",
            CameraSettings(fps=50.0),
            [CameraSettings(gain=1.0)],
            absent="screen:1,2,3",
        )


@contextmanager
def _virtual_screen() -> Iterator[None]:
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("there is no display, and Xvfb is not installed")
    reading, writing = os.pipe()
    # -noreset: otherwise it starts anew when its last client leaves, and refuses one that connects at that moment.
    process = subprocess.Popen(
        [program, "-displayfd", str(writing), "-screen", "0", "320x240x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as numbers:
            number = numbers.readline().strip()
        with _environment(DISPLAY=f":{number}"):
            yield
    finally:
        process.terminate()
        process.wait()


_VENDOR = """
import itertools, sys, time
from pathlib import Path
images = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
sys.stdin.readline()
for number in itertools.count():
    Path(sys.argv[2], f"frame{number}.tif").write_bytes(images[number % len(images)])
    time.sleep(0.01)
"""


@contextmanager
def folder() -> Iterator[Emulator]:
    """A folder into which another process writes images, as a vendor's program does.

    A thread of this process would share the interpreter's lock with the code under test.
    """
    import tempfile

    import tifffile

    with tempfile.TemporaryDirectory() as images, tempfile.TemporaryDirectory() as name:
        for k, frame in enumerate(np.random.default_rng(7).integers(0, 4096, (16, 24, 32), np.uint16)):
            tifffile.imwrite(Path(images) / f"{k:02}.tif", frame)
        command = [sys.executable, "-S", "-c", _VENDOR, images, name]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:

            def begin() -> None:
                assert process.stdin is not None
                process.stdin.write(b"\n")
                process.stdin.flush()

            try:
                yield Emulator(
                    f"folder:{name}",
                    deep=True,
                    refused=[CameraSettings(exposure_ms=1.0)],
                    absent="folder:/nowhere/at/all",
                    listed=False,
                    prepare=begin,
                )
            finally:
                process.kill()


EMULATORS = {
    one.__name__: one
    for one in (simulated, folder, basler, genicam, aravis, micromanager, epics, opencv, screen)
}


def number_of(name: str) -> int:
    """The number in a name."""
    found = re.search(r"\d+", name)
    assert found is not None
    return int(found[0])
