"""Fonts for users' texts in charts: of any script, as far as the computer has a font for it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from atomstream.plain_text import plain_text

FONT: Final = "DejaVu Sans"
"""Comes with matplotlib."""

MORE_FONTS: Final = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR",
    "Source Han Sans", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "IPAGothic", "Droid Sans Fallback",
    "Microsoft YaHei", "SimSun", "Yu Gothic", "MS Gothic", "Malgun Gothic",
    "PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS",
    "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Hebrew", "Noto Sans Arabic", "Noto Sans Symbols 2",
)  # fmt: skip
"""Fonts of systems for the characters that :data:`FONT` does not have, such as Chinese ones; the first that has it."""

NO_GLYPH: Final = "\N{WHITE VERTICAL RECTANGLE}"
"""Stands for a character without a font. Unlike other boxes it is hardly used in names."""


def plain(text: Any, most: int = 60) -> str:
    """A user's text on one line, without the dollar signs that matplotlib would read as formulas.

    A character that no font of this computer has is replaced by :data:`NO_GLYPH`; :func:`glyph_note` explains it.
    """
    line, fonts = " ".join(plain_text(str(text)).split()), installed_fonts()
    line = "".join(char if _has_glyph(char, fonts) else NO_GLYPH for char in line)
    line = line if len(line) <= most else line[: most - 1].rstrip() + "…"
    return line.replace("$", r"\$")


def glyph_note(texts: Iterable[str]) -> str:
    """What :data:`NO_GLYPH` in one of these texts means; empty if none has it."""
    if not any(NO_GLYPH in text for text in texts):
        return ""
    return f"{NO_GLYPH}: a character that no font of this computer has"


def installed_fonts() -> tuple[str, ...]:
    """Those of :data:`MORE_FONTS` that this computer has now: matplotlib also lists fonts that were removed."""
    from matplotlib import font_manager

    paths = {font.name: font.fname for font in font_manager.fontManager.ttflist if font.name in MORE_FONTS}
    return tuple(name for name in MORE_FONTS if name in paths and _opens(paths[name]))


def _opens(path: str) -> bool:
    from matplotlib import font_manager

    try:
        font_manager.get_font(path)
    except (OSError, RuntimeError):
        return False
    return Path(path).is_file()


@cache
def _has_glyph(char: str, fonts: tuple[str, ...]) -> bool:
    from matplotlib import font_manager

    return any(
        font_manager.get_font(font_manager.findfont(name)).get_char_index(ord(char))
        for name in (FONT, *fonts)
    )
