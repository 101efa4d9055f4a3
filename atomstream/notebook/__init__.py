"""The live widget for Jupyter: :func:`live`. It needs the extra ``jupyter``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomstream.optional import load

if TYPE_CHECKING:
    from atomstream.notebook.widget import LiveWidget


def live(
    data_id: str | None = None,
    *,
    trace: str = "specular_intensity",
    window_s: float = 60.0,
    pictures_per_s: float = 4.0,
    api_key: str | None = None,
    endpoint: str | None = None,
) -> LiveWidget:
    """A widget for Jupyter that follows one stream: picture, growth rate with its uncertainty, state and a trace.

    It goes on while other cells run. It ends with the stream, with ``close()``, or with the kernel. The key is never in
    the notebook::

        from atomstream import live

        live()  # the newest stream of the server

    Args:
        data_id: the stream; None: the newest one of the server.
        trace: the result that is drawn over time (docs/numbers.md), such as ``"specular_intensity"``.
        window_s: seconds of it that are shown, from 1 to 3600.
        pictures_per_s: most pictures a second, from 0.1 to 10.
        api_key: key of the server. None: as for :class:`Client`.
        endpoint: URL of the server. None: as for :class:`Client`.

    Raises:
        ImportError: anywidget or Pillow is not installed.
        ConfigError: there is no server or key, or a number is out of its range.
        NotFoundError: there is no such stream, or none at all. ServiceError: the server does not answer.
    """
    load("anywidget", "live", "jupyter")
    load("PIL", "live", "jupyter")
    from atomstream.notebook.widget import LiveWidget

    return LiveWidget.follow(
        data_id,
        trace=trace,
        window_s=window_s,
        pictures_per_s=pictures_per_s,
        api_key=api_key,
        endpoint=endpoint,
    )


__all__ = ["live"]
