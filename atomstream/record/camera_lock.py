"""One recorder for each camera: a second one is refused with a sentence that names the first."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from atomstream.errors import CameraError
from atomstream.system.files import LOCAL
from atomstream.system.own_files import FILE_MODE, prepare_for_library, read_plain


class CameraLock:
    """The lock of one camera for this process. The operating system releases it when the process ends.

    ``folder`` is that of the user for all recorders; ``page`` is the address of this recorder's page.
    """

    def __init__(self, folder: Path, camera: str, page: str) -> None:
        name = hashlib.blake2b(camera.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        self._camera = camera
        self._page = page
        self._note = folder / f"{name}.json"
        self._path = folder / f"{name}.lock"
        self._lock = FileLock(self._path, thread_local=False, mode=FILE_MODE)

    def acquire(self) -> None:
        """Acquire the lock of the camera.

        Raises:
            CameraError: another recorder has the camera, or the lock can't be made.
        """
        try:
            LOCAL.make_folder(self._path.parent)
            prepare_for_library(self._path)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CameraError(
                f"{self._camera} is used by another atomstream recorder{self._other()}. Use its page, or stop it first "
                "(Ctrl-C where it runs)."
            ) from None
        except OSError as error:
            raise CameraError(
                f"The lock of {self._camera} can't be made ({self._path}): {error.strerror or error}."
            ) from error
        with suppress(OSError):
            LOCAL.write_atomic(
                self._note, [json.dumps({"pid": os.getpid(), "page": self._page}).encode()], durable=False
            )

    def release(self) -> None:
        """Unlock; it may be called again."""
        self._lock.release(force=True)

    def _other(self) -> str:
        try:
            note = json.loads(read_plain(self._note))
            return f" (process {int(note['pid'])}, {str(note['page'])[:100]})"
        except (OSError, ValueError, KeyError, TypeError):
            return ""
