"""Rules that client and server share: one lookup key for each name, paths, and equal limits."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from atomstream.analysis import Calibration
from atomstream.errors import ConfigError
from atomstream.protocol import CALIBRATION_LIMITS, EVENTS_PATH, normalized_name, path
from atomstream.service.payloads import NamedItem
from atomstream.streaming.registration import match

MARKS = ["", "\u0301", "\u0327", "\u0345", "\u0323"]
"""An accent above, one attached below, the iota below that folding turns into a letter, and a dot below."""


def spellings(name: str) -> set[str]:
    """``name`` composed, decomposed, and with its case folded both ways."""
    decomposed = unicodedata.normalize("NFD", name)
    folded = decomposed.casefold()
    return {
        name,
        decomposed,
        unicodedata.normalize("NFC", name),
        folded,
        unicodedata.normalize("NFC", folded),
    }


def cased_or_composed() -> list[str]:
    """The characters of Unicode that folding or decomposition changes (Hangul's 11,172 syllables left out)."""
    everything = (chr(code) for code in range(sys.maxunicode + 1) if not 0xAC00 <= code <= 0xD7A3)
    return [c for c in everything if c.casefold() != c or unicodedata.decomposition(c)[:1] not in ("", "<")]


def test_each_spelling_of_a_name_has_one_key() -> None:
    """All over Unicode, alone and with accents: case and composition make no difference to a name's key."""
    for character in cased_or_composed():
        for mark in MARKS:
            name = f"S{character}{mark}"
            keys = {normalized_name(spelling) for spelling in spellings(name)}
            assert len(keys) == 1, [f"{ord(c):x}" for c in name]


def test_the_key_is_unicodes() -> None:
    """Two keys are equal exactly where Unicode's canonical caseless matching (D145) says that two texts match."""

    def canonical(text: str) -> str:
        return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())

    by_key: dict[str, set[str]] = {}
    for character in cased_or_composed():
        by_key.setdefault(normalized_name(f"S{character}."), set()).add(canonical(f"S{character}."))
    assert all(len(matching) == 1 for matching in by_key.values())
    assert len({text for matching in by_key.values() for text in matching}) == len(by_key)


@pytest.mark.parametrize(("first", "second"), [("ᾼ\u0301", "ΆΙ"), ("ὧ\u0327ι", "ᾯ\u0327"), ("ß", "SS")])
def test_the_client_finds_what_the_server_calls_the_same(first: str, second: str) -> None:
    """A name in another spelling finds the sample that exists, where earlier versions disagreed about it too."""
    assert match(first, [NamedItem("1", second)]) == "1"


def test_a_path_is_filled_in_as_single_segments() -> None:
    """A value that fills one segment of a path can't change the other segments."""
    assert path(EVENTS_PATH, data_id="a/../b?c#d e%") == "/rheed/stream/a%2F..%2Fb%3Fc%23d%20e%25/events"


def test_the_analysis_has_the_limits_of_the_server() -> None:
    """An incidence angle that the server accepts is accepted by the analysis, and no other."""
    _, high, _ = CALIBRATION_LIMITS["incidence_deg"]
    assert Calibration(incidence_deg=high).incidence_deg == high
    with pytest.raises(
        ConfigError, match=r"incidence_deg=15\.1 is out of range: it must lie in 0 \.\. 15 degrees"
    ):
        Calibration(incidence_deg=high + 0.1)
