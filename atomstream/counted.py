"""A count with its noun, as in "1 chunk is" and "2 chunks are", for messages to people."""


def counted(count: int, one: str, many: str = "") -> str:
    """Return ``count`` with ``one`` if it is 1, else with ``many`` (default: ``one`` with an s)."""
    return f"{count} {one if count == 1 else many or one + 's'}"
