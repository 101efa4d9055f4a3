"""``python -m atomstream.cli`` runs the commands if the script folder is not on the PATH."""

from __future__ import annotations

from atomstream.cli import main

if __name__ == "__main__":
    main()
