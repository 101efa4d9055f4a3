"""The least length of an API key that a person chose."""

from __future__ import annotations

import math
import string
from typing import Final

from atomstream.errors import ConfigError
from atomstream.protocol import SERVER_KEY_PREFIX

MIN_KEY_BITS: Final = 128

MAX_KEY_CHARS: Final = 1024
"""The longest key that a login accepts."""

_KINDS: Final = (string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation + " ")


def checked_api_key(key: str) -> str:
    """``key`` without blanks around it, as a server may accept it.

    Raises:
        ConfigError: it is empty, too long, has other characters than printable ASCII, or fewer than 128 bits.
    """
    bare = key.strip()
    if not bare:
        raise ConfigError("The API key is empty. Leave it out: the server then makes one at its first start.")
    if not bare.isascii() or not bare.isprintable():
        raise ConfigError(
            "The API key has characters that are not allowed in a key; copy it again, without quotes."
        )
    if len(bare) > MAX_KEY_CHARS:
        raise ConfigError(f"The API key has {len(bare)} characters; at most {MAX_KEY_CHARS} are allowed.")
    bits = key_bits(bare)
    if bits < MIN_KEY_BITS:
        raise ConfigError(
            f"The API key is too short: {len(bare)} characters of these kinds have {bits:.0f} bits, and at least "
            f"{MIN_KEY_BITS} are needed, because a shorter key can be found by trying. Leave the key out (the server "
            "then makes one), or make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return bare


def key_bits(key: str) -> float:
    """The bits of a key, if each of its characters was chosen at random among those of the kinds that it has.

    Hexadecimal digits count 4 bits, other digits 3.3, lower-case letters 4.7, letters and digits 6. The prefix
    ``atst_`` counts nothing.
    """
    secret = key.removeprefix(SERVER_KEY_PREFIX)
    if not set(secret) - set(string.digits):
        size = 10
    elif not set(secret) - set("0123456789abcdef") or not set(secret) - set("0123456789ABCDEF"):
        size = 16
    else:
        size = sum(len(kind) for kind in _KINDS if set(kind) & set(secret))
    return len(secret) * math.log2(size)
