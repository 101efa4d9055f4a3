"""``python -m atomstream.cli``: the commands, where no script directory is on the PATH."""

from __future__ import annotations

from atomstream.cli import main

if __name__ == "__main__":
    main()
