"""``python -m atomstream``: the command line, for computers where the command ``atomstream`` is not on the path."""

from __future__ import annotations

from atomstream.cli import main

if __name__ == "__main__":
    main()
