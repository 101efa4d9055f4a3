"""Retries ten times as soon as usual: the faults are the same, and a test waits less for the end of a delay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from atomstream import retry
from atomstream.pipeline import spool_writer

SHORT_RETRIES = ((retry, "BASE_S", 0.05), (retry, "CEILING_S", 3.0), (spool_writer, "RETRY_S", 0.5))
"""Module, name and value in s of each delay of the client: after a failed request, and after a failed write."""


def shorten() -> None:
    """Use the short delays for the rest of this process."""
    for module, name, seconds in SHORT_RETRIES:
        setattr(module, name, seconds)


@contextmanager
def short_retries() -> Iterator[None]:
    """Use the short delays in the block."""
    usual = [(module, name, getattr(module, name)) for module, name, _ in SHORT_RETRIES]
    shorten()
    try:
        yield
    finally:
        for module, name, seconds in usual:
            setattr(module, name, seconds)
