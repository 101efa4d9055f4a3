"""Spans of OpenTelemetry on the way of a chunk, from ``push`` to its published result.

This package never imports opentelemetry: spans are made only in a program that has imported ``opentelemetry.trace``
itself, as ``opentelemetry-instrument`` does. In other programs each call here costs one look-up in a dictionary. The
trace context goes to the server in the header ``traceparent`` of the upload (W3C Trace Context).
"""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from atomstream.version import __version__

HEADER: Final = "traceparent"
MAX_OPEN: Final = 4096
"""Largest number of open spans; if there are more, the oldest ones are ended."""

_API: Final = "opentelemetry.trace"
_FORMAT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def _api() -> Any:
    """``opentelemetry.trace`` if the program uses it, otherwise None."""
    return sys.modules.get(_API)


def current() -> Any:
    """The context of the caller, as the parent of spans that begin later; None without OpenTelemetry."""
    api = _api()
    return None if api is None else api.set_span_in_context(api.get_current_span())


def headers() -> dict[str, str]:
    """The header that gives the current span to the server; empty without one."""
    api = _api()
    if api is None:
        return {}
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {HEADER: f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"}


def received(given: Mapping[str, str]) -> Any:
    """The context in the headers of a request; None if there is none or it is not valid."""
    api, match = _api(), _FORMAT.fullmatch(given.get(HEADER, "").strip())
    if api is None or match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    context = api.SpanContext(trace_id, span_id, is_remote=True, trace_flags=api.TraceFlags(flags & 1))
    return api.set_span_in_context(api.NonRecordingSpan(context)) if context.is_valid else None


@contextmanager
def span(name: str, parent: Any = None, **attributes: str | int | float) -> Iterator[None]:
    """A span that lasts as long as the block and is the current span within it. An exception of the block is recorded
    in the span.

    ``parent`` is a context of :func:`current` or :func:`received`; None: the current one.
    """
    api = _api()
    if api is None:
        yield
        return
    tracer = api.get_tracer("atomstream", __version__)
    with tracer.start_as_current_span(name, context=parent, attributes=attributes):
        yield


class OpenSpans:
    """Spans that begin in one place and end in another, by a key. Any thread may call it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: OrderedDict[Hashable, Any] = OrderedDict()

    def begin(self, key: Hashable, parent: Any = None, **attributes: str | int | float) -> None:
        """Begin the span of ``key``; does nothing without OpenTelemetry."""
        api = _api()
        if api is None:
            return
        tracer = api.get_tracer("atomstream", __version__)
        self._open[key] = tracer.start_span(self._name, context=parent, attributes=attributes)
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)[1].end()

    def note(self, key: Hashable, event: str, **attributes: str | int | float) -> None:
        """Add an event to the span of ``key``, if it is open."""
        if self._open and (found := self._open.get(key)) is not None:
            found.add_event(event, attributes)

    @contextmanager
    def part(self, key: Hashable, name: str) -> Iterator[None]:
        """A span for the duration of the block, as a part of the span of ``key``."""
        api, whole = _api(), self._open.get(key)
        with span(name, None if api is None or whole is None else api.set_span_in_context(whole)):
            yield

    def end(self, key: Hashable, problem: str = "", **attributes: str | int | float) -> None:
        """End the span of ``key``, if it is open; a ``problem`` makes its status an error."""
        if not self._open or (found := self._open.pop(key, None)) is None:
            return
        found.set_attributes(attributes)
        api = _api()
        if problem and api is not None:
            found.set_status(api.Status(api.StatusCode.ERROR, problem))
        found.end()
