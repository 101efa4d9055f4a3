"""Names that people give to samples, tags and projects: what is taken, and when two are the same."""

from __future__ import annotations

import unicodedata

from atomstream.server.replies import RefusedError

MAX_NAME = 256


def name_key(name: str) -> str:
    """Two names are the same when their keys are equal: outer blanks and case do not count.

    Case goes by Unicode's full folding, and both ways to write an accent are one (NFC), before and after
    the folding, for folding can undo the normal form.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())


def checked_name(name: str, what: str) -> str:
    """``name`` without its outer blanks.

    Raises:
        RefusedError: 400 where nothing remains, or over ``MAX_NAME`` characters.
    """
    bare = name.strip()
    if not bare:
        raise RefusedError(400, f"The {what}'s name is empty.")
    if len(bare) > MAX_NAME:
        raise RefusedError(
            400, f"The {what}'s name has {len(bare)} characters; at most {MAX_NAME} are taken."
        )
    return bare
