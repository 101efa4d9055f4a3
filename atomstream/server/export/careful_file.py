"""A file for HDF5 that survives a full disk.

Where a write fails, HDF5 can't close its file: the library then keeps it open and may end the whole process later. So a
failed write is noted and not reported to HDF5, which then closes the useless file without an error; after that the
error is raised.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py


class CarefulFile(io.RawIOBase):
    """A new file at ``path`` whose writes never fail. ``error`` is the first error; nothing is written after it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def check(self) -> None:
        """Raises the first error of writing, if there was one."""
        if self.error is not None:
            raise self.error

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int | None:
        """As of any file."""
        return self._file.readinto(buffer)

    def write(self, data: Any) -> int:
        """Write all of ``data``, or note why not."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.error is None:
            try:
                done += self._file.write(view[done:]) or 0
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Change the length, or note why not."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@contextmanager
def new_hdf5(path: Path) -> Iterator[tuple[h5py.File, CarefulFile]]:
    """Context manager: a new HDF5 file, and the file below it, whose ``check()`` is for the steps of long writing.

    Raises:
        OSError: something could not be written; at the latest at the end of the block.
    """
    import h5py

    target = CarefulFile(path)
    try:
        with h5py.File(target, "w", track_order=True) as file:
            yield file, target
        target.check()
    finally:
        target.close()
